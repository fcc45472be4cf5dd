#include "server/core/roster.h"

#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

/* Out of memory in a table leaves the element out instead of ending the program. */
#define HASH_NONFATAL_OOM    1
#define uthash_malloc(size)  fl_try(1, size)
#define uthash_free(p, size) fl_free(p)
#include <uthash.h>

struct entry {
    struct fl_roster_agent agent; /* first: what is handed out */
    UT_hash_handle by_id, by_key, by_name;
};

struct fl_roster {
    uint32_t max;
    struct entry *ids, *keys, *names;
};

const char *fl_roster_state_name(enum fl_roster_state state)
{
    static const char *const names[] = {
        [FL_ROSTER_OFFLINE] = "offline",
        [FL_ROSTER_IDLE] = "idle",
        [FL_ROSTER_ASKING] = "asking",
        [FL_ROSTER_WORKING] = "working",
    };
    return names[state];
}

int fl_roster_new(uint32_t max, struct fl_roster **ret, struct fl_err *e)
{
    struct fl_roster *r = fl_try(1, sizeof *r);

    if (!r) {
        return fl_fail(e, FL_R_NOMEM, "the roster");
    }
    r->max = max;
    *ret = r;
    return 0;
}

void fl_roster_free(struct fl_roster *r)
{
    struct entry *one, *next;

    if (!r) {
        return;
    }
    HASH_CLEAR(by_key, r->keys);
    HASH_CLEAR(by_name, r->names);
    HASH_ITER(by_id, r->ids, one, next)
    {
        HASH_DELETE(by_id, r->ids, one);
        fl_free(one);
    }
    fl_free(r);
}

static struct entry *find_id(const struct fl_roster *r, uint64_t id)
{
    struct entry *one;
    HASH_FIND(by_id, r->ids, &id, sizeof id, one);
    return one;
}

static struct entry *find_key(const struct fl_roster *r, const uint8_t key[FL_ROSTER_KEY_SIZE])
{
    struct entry *one;
    HASH_FIND(by_key, r->keys, key, FL_ROSTER_KEY_SIZE, one);
    return one;
}

static struct entry *find_name(const struct fl_roster *r, const char *name)
{
    struct entry *one;
    HASH_FIND(by_name, r->names, name, strlen(name), one);
    return one;
}

const struct fl_roster_agent *fl_roster_by_id(const struct fl_roster *r, uint64_t id)
{
    struct entry *one = find_id(r, id);
    return one ? &one->agent : NULL;
}

const struct fl_roster_agent *fl_roster_by_key(const struct fl_roster *r,
                                               const uint8_t key[FL_ROSTER_KEY_SIZE])
{
    struct entry *one = find_key(r, key);
    return one ? &one->agent : NULL;
}

const struct fl_roster_agent *fl_roster_by_name(const struct fl_roster *r, const char *name)
{
    struct entry *one = find_name(r, name);
    return one ? &one->agent : NULL;
}

/* uthash tells of a failed insertion by leaving the handle's table NULL. */
static bool link_up(struct fl_roster *r, struct entry *one)
{
    HASH_ADD(by_id, r->ids, agent.id, sizeof one->agent.id, one);
    if (!one->by_id.tbl) {
        return false;
    }
    HASH_ADD(by_key, r->keys, agent.key, FL_ROSTER_KEY_SIZE, one);
    if (!one->by_key.tbl) {
        HASH_DELETE(by_id, r->ids, one);
        return false;
    }
    HASH_ADD_KEYPTR(by_name, r->names, one->agent.name, strlen(one->agent.name), one);
    if (!one->by_name.tbl) {
        HASH_DELETE(by_id, r->ids, one);
        HASH_DELETE(by_key, r->keys, one);
        return false;
    }
    return true;
}

int fl_roster_add(struct fl_roster *r, uint64_t id, const uint8_t key[FL_ROSTER_KEY_SIZE],
                  const char *name, const char *serial, bool revoked, struct fl_err *e)
{
    size_t length = strnlen(name, FL_ROSTER_NAME_MAX);
    size_t serial_length = serial ? strnlen(serial, FL_ROSTER_NAME_MAX) : 0;

    if (id == 0 || length == 0 || length == FL_ROSTER_NAME_MAX ||
        serial_length == FL_ROSTER_NAME_MAX) {
        return fl_fail(e, FL_R_ARG, "an agent needs an id and a name of 1 to %d bytes",
                       FL_ROSTER_NAME_MAX - 1);
    }
    if (find_id(r, id) || find_key(r, key)) {
        return fl_fail(e, FL_R_CTL_EXISTS, "agent %s: this key is enrolled", name);
    }
    if (find_name(r, name)) {
        return fl_fail(e, FL_R_CTL_EXISTS, "agent %s: this name is taken", name);
    }
    if (HASH_CNT(by_id, r->ids) >= r->max) {
        return fl_fail(e, FL_R_LIMIT, "agent %s: %u agents are enrolled, the limit", name, r->max);
    }
    struct entry *one = fl_try(1, sizeof *one);
    if (!one) {
        return fl_fail(e, FL_R_NOMEM, "agent %s", name);
    }
    one->agent.id = id;
    one->agent.revoked = revoked;
    memcpy(one->agent.key, key, FL_ROSTER_KEY_SIZE);
    memcpy(one->agent.name, name, length);
    if (serial) {
        memcpy(one->agent.serial, serial, serial_length);
    }
    if (!link_up(r, one)) {
        fl_free(one);
        return fl_fail(e, FL_R_NOMEM, "agent %s", name);
    }
    return 0;
}

bool fl_roster_revoke(struct fl_roster *r, const char *name,
                      const struct fl_roster_agent **ret_agent)
{
    struct entry *one = find_name(r, name);

    if (!one) {
        return false;
    }
    one->agent.revoked = true;
    if (ret_agent) {
        *ret_agent = &one->agent;
    }
    return true;
}

bool fl_roster_mark(struct fl_roster *r, uint64_t agent, uint64_t releases,
                    const struct fl_digest *head)
{
    struct entry *one;

    HASH_FIND(by_id, r->ids, &agent, sizeof agent, one);
    if (!one) {
        return false;
    }
    if (releases < one->agent.releases) {
        return false;
    }
    if (releases > one->agent.releases) {
        one->agent.releases = releases;
        one->agent.head = *head;
        return true;
    }
    return releases == 0 || fl_digest_equal(head, &one->agent.head);
}

void fl_roster_each(const struct fl_roster *r,
                    bool (*each)(void *arg, const struct fl_roster_agent *a), void *arg)
{
    struct entry *one, *next;

    HASH_ITER(by_id, r->ids, one, next)
    {
        if (!each(arg, &one->agent)) {
            return;
        }
    }
}

static void set_state(struct fl_roster_agent *a, enum fl_roster_state state, uint64_t job,
                      uint64_t now_ms)
{
    if (a->state != state || a->job != job) {
        a->since_ms = now_ms;
    }
    a->state = state;
    a->job = job;
}

int fl_roster_connect(struct fl_roster *r, const uint8_t key[FL_ROSTER_KEY_SIZE],
                      const char *serial, uint64_t connection, uint64_t now_ms,
                      const struct fl_roster_agent **ret, uint64_t *ret_replaced, struct fl_err *e)
{
    struct entry *one = find_key(r, key);

    if (!one) {
        return fl_fail(e, FL_R_NOT_ENROLLED, "this certificate's key is not enrolled");
    }
    if (one->agent.revoked) {
        return fl_fail(e, FL_R_AGENT_REVOKED, "agent %s is revoked", one->agent.name);
    }
    snprintf(one->agent.serial, sizeof one->agent.serial, "%s", serial);
    *ret_replaced = one->agent.connection;
    one->agent.connection = connection;
    one->agent.seen_ms = now_ms;
    set_state(&one->agent, FL_ROSTER_IDLE, 0, now_ms);
    *ret = &one->agent;
    return 0;
}

bool fl_roster_disconnect(struct fl_roster *r, uint64_t agent, uint64_t connection, uint64_t now_ms)
{
    struct entry *one = find_id(r, agent);

    if (!one || connection == 0 || one->agent.connection != connection) {
        return false;
    }
    one->agent.connection = 0;
    one->agent.seen_ms = now_ms;
    set_state(&one->agent, FL_ROSTER_OFFLINE, 0, now_ms);
    return true;
}

bool fl_roster_set(struct fl_roster *r, uint64_t agent, enum fl_roster_state state, uint64_t job,
                   uint64_t now_ms)
{
    struct entry *one = find_id(r, agent);

    if (!one || one->agent.connection == 0 || state == FL_ROSTER_OFFLINE) {
        return false;
    }
    set_state(&one->agent, state, state == FL_ROSTER_WORKING ? job : 0, now_ms);
    return true;
}

void fl_roster_counts(const struct fl_roster *r, struct fl_roster_counts *ret)
{
    struct entry *one, *next;

    *ret = (struct fl_roster_counts){0};
    HASH_ITER(by_id, r->ids, one, next)
    {
        ret->enrolled++;
        ret->revoked += one->agent.revoked;
        ret->online += one->agent.state != FL_ROSTER_OFFLINE;
        ret->idle += one->agent.state == FL_ROSTER_IDLE;
        ret->asking += one->agent.state == FL_ROSTER_ASKING;
        ret->working += one->agent.state == FL_ROSTER_WORKING;
    }
}
