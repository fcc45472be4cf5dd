/*
 * The limits of WIRE.md as a table: one rule for each field of each message, in the order of their
 * numbers in cohort.proto. A walk over protobuf-c's own descriptors applies them, so that no check
 * can be forgotten without a test noticing: the number of rules must be the number of fields.
 */
#include "common/wire/msg_rules.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/wire/msg.h"
#include "common/wire/text.h"

#include <string.h>

enum kind {
    NUMBER,    /* min..max */
    BYTES,     /* min..max of them */
    NAME,      /* 1..max characters of a name */
    PRINTABLE, /* min..max ASCII characters */
    TEXT,      /* at most max bytes for people */
    INSIDE,    /* another message; min 1 = required */
};

struct rule {
    enum kind kind;
    uint64_t min, max;
    size_t most; /* of a repeated field */
};

/* Rules that many fields share. */
#define REASON       NUMBER, 1, 9999, 0
#define PEOPLE       TEXT, 0, FL_TEXT_MAX, 0
#define KEY          INSIDE, 1, 1, 0
#define BODY         INSIDE, 0, 1, 0
#define DIGEST       BYTES, FL_DIGEST_SIZE, FL_DIGEST_SIZE, 0
#define INCARNATION  BYTES, FL_INCARNATION_SIZE, FL_INCARNATION_SIZE, 0
#define JOB          NAME, 1, FL_WIRE_NAME_MAX, 0
#define ROUND        NUMBER, 1, INT64_MAX, 0
#define SIZE         NUMBER, 1, FL_OBJECT_MAX, 0
#define UPDATE_SIZE  NUMBER, 0, FL_OBJECT_MAX, 0 /* 0: everything stays home */
#define PLAN_SIZE    NUMBER, 1, FL_WIRE_PLAN_MAX, 0
#define OFFSET       NUMBER, 0, FL_OBJECT_MAX, 0
#define RETRY        NUMBER, 0, FL_WIRE_RETRY_MAX_MS, 0
#define CAPABILITIES NAME, 1, FL_WIRE_CAPABILITIES_MAX, FL_WIRE_CAPABILITIES_MAX
#define ANY          NUMBER, 0, UINT64_MAX, 0

static const struct rule hello[] = {
    {NUMBER, 1, 1000, 0}, {NUMBER, 1, 1000, 0}, {CAPABILITIES}, {PRINTABLE, 0, 64, 0}};
static const struct rule welcome[] = {
    {NUMBER, 1, 1000, 0},
    {CAPABILITIES},
    {PRINTABLE, 1, FL_WIRE_NAME_MAX, 0},
    {NUMBER, FL_WIRE_HEARTBEAT_MIN_MS, FL_WIRE_HEARTBEAT_MAX_MS, 0},
    {NUMBER, FL_FRAME_HELLO_MAX, FL_FRAME_MAX, 0},
    {BYTES, 16, 16, 0},
    {INSIDE, 0, 1, 0}};
static const struct rule mark[] = {{NUMBER, 1, INT64_MAX, 0}, {DIGEST}};
static const struct rule refuse[] = {{REASON}, {PEOPLE}, {INSIDE, 0, 1, 0}};
static const struct rule ping[] = {{ANY}};
static const struct rule bye[] = {{NUMBER, 0, 9999, 0}, {PEOPLE}, {RETRY}};
static const struct rule key[] = {
    {INCARNATION}, {ROUND}, {NUMBER, 0, FL_WIRE_EXCHANGES_MAX - 1, 0}};
static const struct rule ask[] = {{NAME, 1, FL_WIRE_NAME_MAX, FL_WIRE_JOBS_MAX}};
static const struct rule rest[] = {{REASON}, {PEOPLE}, {RETRY}, {INSIDE, 1, 1, FL_WIRE_FINALS_MAX}};
static const struct rule final[] = {{INCARNATION}, {JOB},    {ROUND}, {DIGEST},
                                    {PLAN_SIZE},   {DIGEST}, {SIZE}};
static const struct rule task[] = {{KEY},
                                   {JOB},
                                   {JOB},
                                   {DIGEST},
                                   {PLAN_SIZE},
                                   {DIGEST},
                                   {UPDATE_SIZE},
                                   {UPDATE_SIZE},
                                   {NUMBER, 0, (uint64_t)366 * 86400000, 0},
                                   {INSIDE, 0, 1, 0}};
static const struct rule object[] = {{DIGEST}, {SIZE}};
static const struct rule accept[] = {{KEY}};
static const struct rule decline[] = {{KEY}, {REASON}, {PEOPLE}};
static const struct rule fetch[] = {{DIGEST}, {OFFSET}};
static const struct rule chunk[] = {{DIGEST}, {OFFSET}, {BYTES, 1, FL_CHUNK_MAX, 0}};
static const struct rule offer[] = {{KEY},
                                    {DIGEST},
                                    {UPDATE_SIZE},
                                    {DIGEST},
                                    {DIGEST},
                                    {NUMBER, 1, FL_WIRE_WEIGHT_MAX, 0},
                                    {INSIDE, 0, 1, 0}};
static const struct rule resume[] = {{KEY}, {DIGEST}, {OFFSET}};
static const struct rule ack[] = {{KEY}, {DIGEST}};
static const struct rule claim[] = {{INSIDE, 1, 1, FL_WIRE_CLAIMS_MAX}};
static const struct rule claimed[] = {
    {INCARNATION}, {ROUND}, {NUMBER, 0, FL_WIRE_EXCHANGES_MAX - 1, 0}, {DIGEST}};
static const struct rule receipt[] = {{KEY}, {INSIDE, 0, 1, 0}, {NUMBER, 0, 9999, 0}};
static const struct rule inclusion[] = {{DIGEST},
                                        {NUMBER, 1, FL_WIRE_WEIGHT_MAX, 0},
                                        {UPDATE_SIZE},
                                        {DIGEST},
                                        {DIGEST},
                                        {BYTES, 1, FL_WIRE_CERTIFICATE_MAX, 0},
                                        {BYTES, 1, FL_WIRE_SIGNATURE_MAX, 0},
                                        {ROUND}};
static const struct rule frame[] = {{BODY}, {BODY}, {BODY}, {BODY}, {BODY}, {BODY}, {BODY},
                                    {BODY}, {BODY}, {BODY}, {BODY}, {BODY}, {BODY}, {BODY},
                                    {BODY}, {BODY}, {BODY}, {BODY}, {BODY}};

#define TYPE(descriptor, rules)                                                                    \
    {                                                                                              \
        &cohort__##descriptor##__descriptor, rules, FL_COUNT(rules)                                \
    }
static const struct {
    const ProtobufCMessageDescriptor *type;
    const struct rule *rules;
    size_t count;
} table[] = {
    /* Chunk first: there are many of them. */
    TYPE(frame, frame),
    TYPE(chunk, chunk),
    TYPE(key, key),
    TYPE(hello, hello),
    TYPE(welcome, welcome),
    TYPE(refuse, refuse),
    TYPE(ping, ping),
    TYPE(pong, ping),
    TYPE(bye, bye),
    TYPE(ask, ask),
    TYPE(rest, rest),
    TYPE(final, final),
    TYPE(task, task),
    TYPE(accept, accept),
    TYPE(decline, decline),
    TYPE(over, decline),
    TYPE(fetch, fetch),
    TYPE(offer, offer),
    TYPE(resume, resume),
    TYPE(ack, ack),
    TYPE(mark, mark),
    TYPE(object, object),
    TYPE(claim, claim),
    TYPE(receipt, receipt),
    TYPE(inclusion, inclusion),
    TYPE(claimed, claimed),
};

int fl_msg_rules_count(const ProtobufCMessageDescriptor *type)
{
    for (size_t i = 0; i < FL_COUNT(table); i++) {
        if (table[i].type == type) {
            return (int)table[i].count;
        }
    }
    return -1;
}

static int bad(struct fl_err *e, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
               const char *what)
{
    return fl_fail(e, FL_R_MSG_FIELD, "%s.%s: %s", m->descriptor->short_name, f->name, what);
}

static int outside(struct fl_err *e, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                   const char *what, uint64_t n, const struct rule *rule)
{
    return fl_fail(e, FL_R_MSG_FIELD, "%s.%s: %s %llu, must be %llu to %llu",
                   m->descriptor->short_name, f->name, what, (unsigned long long)n,
                   (unsigned long long)rule->min, (unsigned long long)rule->max);
}

static int check_inside(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                        const struct rule *rule, const ProtobufCMessage *inner, struct fl_err *e)
{
    if (!inner) {
        return rule->min ? bad(e, m, f, "missing") : 0;
    }
    return inner->descriptor == f->descriptor ? fl_msg_rules_check(inner, e)
                                              : bad(e, m, f, "another message");
}

/* Our own messages may hold NULL for an empty string. */
static const char *string(const void *at)
{
    const char *s = *(char *const *)at;

    return s ? s : "";
}

/* One value at `at`, of the field's C type. */
static int check_value(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                       const struct rule *rule, const void *at, struct fl_err *e)
{
    uint64_t n;

    switch (rule->kind) {
    case NUMBER:
        n = f->type == PROTOBUF_C_TYPE_UINT32 ? *(const uint32_t *)at : *(const uint64_t *)at;
        return n < rule->min || n > rule->max ? outside(e, m, f, "value", n, rule) : 0;
    case BYTES:
        n = ((const ProtobufCBinaryData *)at)->len;
        return n < rule->min || n > rule->max ? outside(e, m, f, "length", n, rule) : 0;
    case NAME:
        return fl_text_name(string(at), rule->max) ? 0 : bad(e, m, f, "not a name");
    case PRINTABLE:
        return fl_text_printable(string(at), rule->min, rule->max)
                   ? 0
                   : bad(e, m, f, "not printable, missing or too long");
    case TEXT:
        return fl_text_valid(string(at), rule->max)
                   ? 0
                   : bad(e, m, f, "too long, not UTF-8 or with control characters");
    case INSIDE:
        return check_inside(m, f, rule, *(ProtobufCMessage *const *)at, e);
    }
    return fl_fail(e, FL_R_INTERNAL, "a rule of unknown kind");
}

static int check_repeated(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                          const struct rule *rule, struct fl_err *e)
{
    const char *base = (const char *)m;
    size_t n = *(const size_t *)(const void *)(base + f->quantifier_offset);
    void *const *items = *(void *const *const *)(const void *)(base + f->offset);

    if (n > rule->most) {
        return fl_fail(e, FL_R_MSG_FIELD, "%s.%s: %zu of them, at most %zu",
                       m->descriptor->short_name, f->name, n, rule->most);
    }
    /* All repeated fields are of strings or messages: arrays of pointers. */
    for (size_t i = 0; i < n; i++) {
        int r = check_value(m, f, rule, &items[i], e);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* What the table cannot say. */
static int check_relations(const ProtobufCMessage *m, struct fl_err *e)
{
    if (m->descriptor == &cohort__hello__descriptor) {
        const Cohort__Hello *h = (const Cohort__Hello *)(const void *)m;
        if (h->min_version > h->max_version) {
            return fl_fail(e, FL_R_MSG_FIELD, "Hello: versions %u to %u", h->min_version,
                           h->max_version);
        }
    } else if (m->descriptor == &cohort__chunk__descriptor) {
        const Cohort__Chunk *c = (const Cohort__Chunk *)(const void *)m;
        if (c->offset > FL_OBJECT_MAX - c->data.len) {
            return fl_fail(e, FL_R_MSG_FIELD, "Chunk: ends behind the longest object");
        }
    }
    return 0;
}

int fl_msg_rules_check(const ProtobufCMessage *m, struct fl_err *e)
{
    const ProtobufCMessageDescriptor *type = m->descriptor;
    const struct rule *rules = NULL;

    for (size_t i = 0; i < FL_COUNT(table) && !rules; i++) {
        rules = table[i].type == type && table[i].count == type->n_fields ? table[i].rules : NULL;
    }
    if (!rules) {
        return fl_fail(e, FL_R_INTERNAL, "no rules for the fields of %s", type->short_name);
    }
    if (m->n_unknown_fields > 0) {
        return fl_fail(e, FL_R_FRAME_UNKNOWN, "%s: field %u is unknown", type->short_name,
                       m->unknown_fields[0].tag);
    }
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        const char *base = (const char *)m;
        int r = 0;
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            /* The members of a oneof share their place; only the chosen one is looked at. */
            if (*(const uint32_t *)(const void *)(base + f->quantifier_offset) == f->id) {
                r = check_value(m, f, &(struct rule){INSIDE, 1, 1, 0}, base + f->offset, e);
            }
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            r = check_repeated(m, f, &rules[i], e);
        } else {
            r = check_value(m, f, &rules[i], base + f->offset, e);
        }
        if (r < 0) {
            return r;
        }
    }
    return check_relations(m, e);
}
