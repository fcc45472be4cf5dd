#include "common/io/ctl_wire.h"

#include "common/base/mem.h"
#include "control.pb-c.h"

#include <string.h>

/* What unpacking may cost: a message unpacks to a few times its size unless it is made to hurt. */
enum { BUDGET_FIXED = 64 * 1024, BUDGET_FACTOR = 4 };

/* Lives until fl_ctl_release: the message and the allocator that its parts came from. */
struct memory {
    size_t left;
    ProtobufCAllocator allocator;
    ProtobufCMessage *message;
};

static void *budget_alloc(void *arg, size_t size)
{
    struct memory *m = arg;

    /* protobuf-c asks for 0 bytes now and then and takes NULL for failure. */
    size = size ? size : 1;
    if (size > m->left) {
        return NULL;
    }
    void *p = fl_try(1, size);
    if (p) {
        m->left -= size;
    }
    return p;
}

static void budget_free(void *arg, void *p)
{
    (void)arg;
    fl_free(p);
}

void fl_ctl_release(void *memory)
{
    struct memory *m = memory;

    if (m) {
        if (m->message) {
            protobuf_c_message_free_unpacked(m->message, &m->allocator);
        }
        fl_free(m);
    }
}

static int unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                  struct memory **ret, struct fl_err *e)
{
    struct memory *m = fl_try(1, sizeof *m);

    if (!m) {
        return fl_fail(e, FL_R_NOMEM, "control message of %zu bytes", size);
    }
    m->left = BUDGET_FIXED + BUDGET_FACTOR * size;
    m->allocator = (ProtobufCAllocator){budget_alloc, budget_free, m};
    m->message = protobuf_c_message_unpack(type, &m->allocator, size, data);
    if (!m->message || m->message->n_unknown_fields > 0) {
        fl_ctl_release(m);
        return fl_fail(e, FL_R_FRAME_PARSE, "not a message of the control protocol");
    }
    *ret = m;
    return 0;
}

static bool word(const char *s)
{
    return strnlen(s, FL_CTL_VALUE_MAX + 1) <= FL_CTL_VALUE_MAX;
}

const char *fl_ctl_argument(const struct fl_ctl_request *r, const char *name)
{
    for (uint32_t i = 0; i < r->argument_count; i++) {
        if (strcmp(r->arguments[i].name, name) == 0) {
            return r->arguments[i].value;
        }
    }
    return NULL;
}

int fl_ctl_length(const uint8_t head[FL_CTL_HEAD], uint32_t *ret)
{
    uint32_t n = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 |
                 (uint32_t)head[3];

    if (n == 0 || n > FL_CTL_REQUEST_MAX) {
        return -FL_R_FRAME_SIZE;
    }
    *ret = n;
    return 0;
}

static int pack(const ProtobufCMessage *message, uint8_t **ret, size_t *ret_size)
{
    size_t size = protobuf_c_message_get_packed_size(message);

    if (size > FL_CTL_REQUEST_MAX) {
        return -FL_R_LIMIT;
    }
    uint8_t *frame = fl_try(1, FL_CTL_HEAD + size);
    if (!frame) {
        return -FL_R_NOMEM;
    }
    for (int i = 0; i < FL_CTL_HEAD; i++) {
        frame[i] = (uint8_t)(size >> (8 * (FL_CTL_HEAD - 1 - i)));
    }
    protobuf_c_message_pack(message, frame + FL_CTL_HEAD);
    *ret = frame;
    *ret_size = FL_CTL_HEAD + size;
    return 0;
}

/* protobuf-c's structs are not const-correct; packing only reads. */
static char *loose(const char *s)
{
    union {
        const char *in;
        char *out;
    } u = {s ? s : ""};
    return u.out;
}

static uint8_t *loose_bytes(const uint8_t *s)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } u = {s};
    return u.out;
}

int fl_ctl_pack_request(const struct fl_ctl_request *r, uint8_t **ret, size_t *ret_size,
                        struct fl_err *e)
{
    Control__Request request = CONTROL__REQUEST__INIT;
    Control__Argument arguments[FL_CTL_ARGUMENTS_MAX];
    Control__Argument *pointers[FL_CTL_ARGUMENTS_MAX];

    if (r->argument_count > FL_CTL_ARGUMENTS_MAX) {
        return fl_fail(e, FL_R_LIMIT, "more than %d arguments", FL_CTL_ARGUMENTS_MAX);
    }
    for (uint32_t i = 0; i < r->argument_count; i++) {
        control__argument__init(&arguments[i]);
        arguments[i].name = loose(r->arguments[i].name);
        arguments[i].value = loose(r->arguments[i].value);
        if (!word(arguments[i].name) || !word(arguments[i].value)) {
            return fl_fail(e, FL_R_LIMIT, "an argument is longer than %d bytes", FL_CTL_VALUE_MAX);
        }
        pointers[i] = &arguments[i];
    }
    request.version = FL_CTL_VERSION;
    request.verb = loose(r->verb);
    request.arguments = pointers;
    request.n_arguments = r->argument_count;
    request.body.data = loose_bytes(r->body);
    request.body.len = r->body_size;
    int status = pack(&request.base, ret, ret_size);
    return status ? fl_fail(e, (enum fl_reason) - status,
                            "a request of more than %d bytes, or out of memory", FL_CTL_REQUEST_MAX)
                  : 0;
}

int fl_ctl_pack_answer(const struct fl_ctl_answer *a, uint8_t **ret, size_t *ret_size)
{
    Control__Answer answer = CONTROL__ANSWER__INIT;
    Control__Part part = CONTROL__PART__INIT;
    Control__End end = CONTROL__END__INIT;

    if (a->kind == FL_CTL_END) {
        end.reason = a->reason;
        end.text = loose(a->text);
        answer.kind_case = CONTROL__ANSWER__KIND_END;
        answer.end = &end;
    } else {
        if (a->kind == FL_CTL_JSON) {
            part.json = loose(a->text);
        } else {
            part.data.data = loose_bytes(a->data);
            part.data.len = a->size;
        }
        answer.kind_case = CONTROL__ANSWER__KIND_PART;
        answer.part = &part;
    }
    return pack(&answer.base, ret, ret_size);
}

static int check_request(const Control__Request *q, struct fl_err *e)
{
    if (q->base.n_unknown_fields > 0 || q->version != FL_CTL_VERSION) {
        return fl_fail(e, FL_R_VERSION, "control protocol version %u, this daemon speaks %d",
                       q->version, FL_CTL_VERSION);
    }
    if (q->n_arguments > FL_CTL_ARGUMENTS_MAX) {
        return fl_fail(e, FL_R_CTL_REQUEST, "more than %d arguments", FL_CTL_ARGUMENTS_MAX);
    }
    if (q->verb[0] == 0 || !word(q->verb)) {
        return fl_fail(e, FL_R_CTL_REQUEST, "a request without a verb");
    }
    for (size_t i = 0; i < q->n_arguments; i++) {
        const Control__Argument *a = q->arguments[i];
        if (a->base.n_unknown_fields > 0 || !word(a->name) || !word(a->value)) {
            return fl_fail(e, FL_R_CTL_REQUEST, "argument %zu cannot be used", i + 1);
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(q->arguments[k]->name, a->name) == 0) {
                return fl_fail(e, FL_R_CTL_REQUEST, "argument '%.64s' given twice", a->name);
            }
        }
    }
    return 0;
}

int fl_ctl_unpack_request(const uint8_t *data, size_t size, struct fl_ctl_request *ret,
                          void **ret_memory, struct fl_err *e)
{
    struct memory *m = NULL;
    int status = unpack(&control__request__descriptor, data, size, &m, e);

    if (status) {
        return status;
    }
    const Control__Request *q = (const Control__Request *)m->message;
    status = check_request(q, e);
    if (status) {
        fl_ctl_release(m);
        return status;
    }
    *ret = (struct fl_ctl_request){.verb = q->verb,
                                   .argument_count = (uint32_t)q->n_arguments,
                                   .body = q->body.data,
                                   .body_size = q->body.len};
    for (size_t i = 0; i < q->n_arguments; i++) {
        ret->arguments[i].name = q->arguments[i]->name;
        ret->arguments[i].value = q->arguments[i]->value;
    }
    *ret_memory = m;
    return 0;
}

int fl_ctl_unpack_answer(const uint8_t *data, size_t size, struct fl_ctl_answer *ret,
                         void **ret_memory, struct fl_err *e)
{
    struct memory *m = NULL;
    int status = unpack(&control__answer__descriptor, data, size, &m, e);

    if (status) {
        return status;
    }
    const Control__Answer *a = (const Control__Answer *)m->message;
    if (a->kind_case == CONTROL__ANSWER__KIND_END) {
        *ret = (struct fl_ctl_answer){
            .kind = FL_CTL_END, .text = a->end->text, .reason = a->end->reason};
    } else if (a->kind_case == CONTROL__ANSWER__KIND_PART) {
        bool json = a->part->data.len == 0;
        *ret = (struct fl_ctl_answer){.kind = json ? FL_CTL_JSON : FL_CTL_DATA,
                                      .text = a->part->json,
                                      .data = a->part->data.data,
                                      .size = a->part->data.len};
    } else {
        fl_ctl_release(m);
        return fl_fail(e, FL_R_FRAME_PARSE, "an answer without content");
    }
    *ret_memory = m;
    return 0;
}
