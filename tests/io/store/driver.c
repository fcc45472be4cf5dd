#include "tests/io/store/driver.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/io/file.h"
#include "common/io/spool.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UPLOAD_MAX = 9000, MODEL = 5000 };
static const uint64_t late_rounds = 1000000;
static const uint8_t incarnation[FL_INCARNATION_SIZE] = {0xab, 1};

struct world {
    struct fl_store *store;
    struct fl_rng rng;
    uint64_t agents; /* enrolled */
    struct fl_store_job job;
    bool has_job;
};

/* ---- what follows from the records ---- */

/* The very bytes that this agent will always send for this key. */
static size_t upload_bytes(uint64_t round, uint32_t exchange, uint64_t agent, uint8_t *ret)
{
    struct fl_seed base, seed;
    struct fl_rng rng;

    fl_seed_from_u64(round, &base);
    fl_seed_derive(&base, "upload", agent * 16 + exchange, &seed);
    fl_rng_init(&rng, &seed, 0);
    size_t size = 1 + (size_t)fl_rng_below(&rng, UPLOAD_MAX - 1);
    fl_rng_bytes(&rng, ret, size);
    return size;
}

static struct fl_store_update update_of(uint64_t round, uint32_t exchange, uint64_t agent,
                                        uint8_t bytes[UPLOAD_MAX])
{
    struct fl_store_update u = {.job = 1,
                                .round = round,
                                .exchange = exchange,
                                .agent = agent,
                                .weight = (uint32_t)(agent + round)};

    u.size = upload_bytes(round, exchange, agent, bytes);
    fl_digest_of(bytes, u.size, &u.digest);
    return u;
}

/* The model of a round is a function of who was closed into it. */
static void model_bytes(uint64_t round, const uint32_t masks[DRIVER_EXCHANGES], uint8_t *ret)
{
    struct fl_seed base, seed;
    struct fl_rng rng;

    fl_seed_from_u64(round, &base);
    fl_seed_derive(&base, "model", masks[0] * 65536 + masks[1], &seed);
    fl_rng_init(&rng, &seed, 0);
    fl_rng_bytes(&rng, ret, MODEL);
}

/* ---- reading ---- */

static int on_agent(void *arg, const struct fl_store_agent *a)
{
    uint64_t *n = arg;
    *n = a->id;
    return 0;
}

static int on_job(void *arg, const struct fl_store_job *j)
{
    struct world *w = arg;

    w->job = *j;
    w->job.text = NULL;
    w->has_job = true;
    return 0;
}

static int on_member(void *arg, uint64_t agent, uint64_t base, bool closed_in)
{
    uint32_t *mask = arg;

    mask[0] |= (uint32_t)closed_in << agent;
    mask[1] |= 1u << agent;
    (void)base;
    return 0;
}

static int on_update(void *arg, const struct fl_store_update *u)
{
    uint32_t *mask = arg;
    *mask |= 1u << u->agent;
    return 0;
}

/* ---- one step each ---- */

struct step {
    const struct driver *d;
    struct world *w;
    uint64_t round;
    uint32_t exchange;
    uint32_t closed;
};

static void tell(const struct driver *d, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void tell(const struct driver *d, const char *fmt, ...)
{
    char line[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    d->fact(d->arg, line);
}

static int step_open(struct step *s, struct fl_err *e)
{
    struct fl_store_quota quota = {.keep_models = 2};
    uint8_t id[16];
    int r;

    if (s->w->store) {
        return 0;
    }
    if ((r = fl_store_open(s->d->dir, &quota, &s->w->store, id, e)) != 0 ||
        (r = fl_store_agents(s->w->store, on_agent, &s->w->agents, e)) != 0) {
        fl_store_close(s->w->store);
        s->w->store = NULL;
    }
    return r;
}

static int step_enrol(struct step *s, struct fl_err *e)
{
    while (s->w->agents < DRIVER_AGENTS) {
        char name[16];
        uint8_t key[32] = {(uint8_t)(s->w->agents + 1)};
        uint64_t id;

        snprintf(name, sizeof name, "site-%" PRIu64, s->w->agents + 1);
        int r = fl_store_agent_add(s->w->store, key, name, "", &id, e);
        if (r != 0) {
            return r;
        }
        s->w->agents = id;
        tell(s->d, "agent %" PRIu64 " %s", id, name);
    }
    return 0;
}

static int step_job(struct step *s, struct fl_err *e)
{
    struct fl_store_job job = {.name = "job", .text = "text 0", .text_size = 6, .model_size = 100};
    uint32_t masks[DRIVER_EXCHANGES] = {0};
    uint8_t model[MODEL];
    uint64_t id;
    int r = fl_store_jobs(s->w->store, on_job, s->w, e);

    if (r != 0 || s->w->has_job) {
        return r;
    }
    model_bytes(0, masks, model);
    struct fl_piece piece = {model, MODEL};
    memcpy(job.incarnation, incarnation, sizeof incarnation);
    fl_digest_of(model, 100, &job.model);
    if ((r = fl_store_checkpoint_write(s->w->store, incarnation, 0, &piece, 1, &job.checkpoint,
                                       e)) != 0 ||
        (r = fl_store_job_add(s->w->store, &job, &id, e)) != 0) {
        return r;
    }
    tell(s->d, "job 1");
    return fl_store_jobs(s->w->store, on_job, s->w, e);
}

static int tell_update(void *arg, const struct fl_store_update *u)
{
    char hex[FL_DIGEST_HEX];

    fl_digest_hex(&u->digest, hex);
    tell(arg, "commit %" PRIu64 " %u %" PRIu64 " %s", u->round, u->exchange, u->agent, hex);
    return 0;
}

/* What is found at the start is promised at once, as a coordinator acknowledges an upload that is
 * offered again: a killed process may have left it visible but not yet durable. */
static int step_found(struct step *s, struct fl_err *e)
{
    struct fl_store_round round;
    char hex[FL_DIGEST_HEX];
    int r = fl_store_jobs(s->w->store, on_job, s->w, e);

    if (r != 0 || !s->w->has_job) {
        return r;
    }
    tell(s->d, "job 1");
    if (s->w->job.round > 0) {
        fl_digest_hex(&s->w->job.checkpoint, hex);
        tell(s->d, "published %" PRIu64 " %s", s->w->job.round, hex);
    }
    if ((r = fl_store_round_load(s->w->store, 1, &round, e)) != 1) {
        return r;
    }
    fl_free(round.text);
    tell(s->d, "open %" PRIu64, round.round);
    r = 0;
    for (uint32_t x = 0; x < DRIVER_EXCHANGES && r == 0; x++) {
        uint32_t got[2] = {0};
        r = fl_store_updates(s->w->store, 1, round.round, x, tell_update, (void *)(uintptr_t)s->d,
                             e);
        if (r == 0 && x < round.closed &&
            (r = fl_store_members(s->w->store, 1, round.round, x, on_member, got, e)) == 0) {
            tell(s->d, "closed %" PRIu64 " %u %u", round.round, x, got[0]);
        }
    }
    return r;
}

/* The open round, or the next one; and who is asked. */
static int step_round(struct step *s, struct fl_err *e)
{
    struct fl_store_round round;
    uint64_t agents[DRIVER_AGENTS] = {1, 2, 3, 4};
    char text[32];
    int r = fl_store_round_load(s->w->store, 1, &round, e);

    if (r == 1) {
        s->round = round.round;
        s->closed = round.closed;
        fl_free(round.text);
    } else if (r == 0) {
        struct fl_digest plan;
        s->round = s->w->job.round + 1;
        s->closed = 0;
        int n = snprintf(text, sizeof text, "plan %" PRIu64, s->round / 3);
        fl_digest_of(text, (size_t)n, &plan);
        r = fl_store_round_open(s->w->store, 1, s->round, text, (size_t)n, &plan, &s->w->job.model,
                                e);
        if (r == 0) {
            tell(s->d, "open %" PRIu64, s->round);
        }
    }
    if (r < 0) {
        return r;
    }
    for (uint32_t x = s->closed; x < DRIVER_EXCHANGES; x++) {
        r = fl_store_members_add(s->w->store, 1, s->round, x, s->round, agents, DRIVER_AGENTS, e);
        if (r != 0) {
            return r;
        }
        tell(s->d, "invited %" PRIu64 " %u", s->round, x);
    }
    return 0;
}

/* Receives one upload, in one go or over two connections. */
static int receive(struct step *s, const struct fl_store_update *u, const uint8_t *bytes,
                   struct fl_err *e)
{
    char folder[FL_STORE_PATH_MAX], name[FL_STORE_NAME_MAX];
    struct fl_spool *spool;
    uint64_t at;
    int r = fl_store_upload_place(s->w->store, u, folder, name, e);

    for (int part = 0; part < 2 && r == 0; part++) {
        size_t until = part == 1 || fl_rng_below(&s->w->rng, 2) ? u->size : u->size / 2;
        if ((r = fl_spool_open(folder, name, &u->digest, u->size, &spool, &at, e)) != 0) {
            break;
        }
        while (r == 0 && at < until) {
            size_t n = until - at < 3000 ? until - at : 3000;
            r = fl_spool_write(spool, at, bytes + at, n, e);
            at += n;
        }
        if (r == 0 && at == u->size && s->d->commit_unsealed) {
            char part_path[FL_STORE_PATH_MAX + 300], whole[FL_STORE_PATH_MAX + 300];
            snprintf(part_path, sizeof part_path, "%s/%s.part", folder, name);
            snprintf(whole, sizeof whole, "%s/%s", folder, name);
            r = rename(part_path, whole) == 0 ? 1 : -FL_R_STORE_IO;
        } else if (r == 0 && at == u->size) {
            r = fl_spool_seal(spool, e);
            r = r == 0 ? 1 : r;
        } else if (r == 0) {
            r = fl_spool_sync(spool, e);
        }
        fl_spool_close(spool);
    }
    return r == 1 ? 0 : r;
}

/* Groups of one to three, until all but perhaps one agent have committed. */
static int step_commit(struct step *s, struct fl_err *e)
{
    static uint8_t bytes[UPLOAD_MAX];
    struct fl_store_update group[DRIVER_AGENTS];
    int status[DRIVER_AGENTS];
    uint32_t there = 0;
    char hex[FL_DIGEST_HEX];
    int r = fl_store_updates(s->w->store, 1, s->round, s->exchange, on_update, &there, e);

    for (uint64_t agent = 1; agent <= DRIVER_AGENTS && r == 0;) {
        uint32_t n = 0, want = 1 + (uint32_t)fl_rng_below(&s->w->rng, 3);
        for (; n < want && agent <= DRIVER_AGENTS && r == 0; agent++) {
            if (!(there >> agent & 1) && (agent > 1 || fl_rng_below(&s->w->rng, 2))) {
                group[n] = update_of(s->round, s->exchange, agent, bytes);
                r = receive(s, &group[n], bytes, e);
                n += r == 0;
            }
        }
        if (r == 0) {
            r = fl_store_commit(s->w->store, group, n, status, e);
        }
        for (uint32_t i = 0; i < n && r == 0; i++) {
            if (status[i] != 0) {
                return fl_fail(e, FL_R_INTERNAL, "commit answered %d", status[i]);
            }
            fl_digest_hex(&group[i].digest, hex);
            tell(s->d, "commit %" PRIu64 " %u %" PRIu64 " %s", s->round, s->exchange,
                 group[i].agent, hex);
        }
    }
    return r;
}

static int step_close(struct step *s, struct fl_err *e)
{
    uint64_t members[DRIVER_AGENTS];
    uint32_t mask = 0, n = 0;
    int r = fl_store_updates(s->w->store, 1, s->round, s->exchange, on_update, &mask, e);

    for (uint64_t agent = 1; agent <= DRIVER_AGENTS; agent++) {
        if (mask >> agent & 1) {
            members[n++] = agent;
        }
    }
    if (r == 0) {
        r = fl_store_close_exchange(s->w->store, 1, s->round, s->exchange, members, n, 1, e);
    }
    if (r == 0) {
        tell(s->d, "closed %" PRIu64 " %u %u", s->round, s->exchange, mask);
    }
    return r;
}

static int step_publish(struct step *s, struct fl_err *e)
{
    uint32_t masks[DRIVER_EXCHANGES] = {0};
    uint8_t bytes[MODEL];
    struct fl_digest checkpoint, model;
    char hex[FL_DIGEST_HEX];
    int r;

    for (uint32_t x = 0; x < DRIVER_EXCHANGES; x++) {
        uint32_t got[2] = {0};
        if ((r = fl_store_members(s->w->store, 1, s->round, x, on_member, got, e)) != 0) {
            return r;
        }
        masks[x] = got[0];
    }
    model_bytes(s->round, masks, bytes);
    struct fl_piece pieces[2] = {{bytes, 100}, {bytes + 100, MODEL - 100}};
    fl_digest_of(bytes, 100, &model);
    if ((r = fl_store_checkpoint_write(s->w->store, incarnation, s->round, pieces, 2, &checkpoint,
                                       e)) != 0 ||
        (r = fl_store_publish(s->w->store, 1, s->round, &checkpoint, &model, 100,
                              (uint32_t)late_rounds, e)) != 0) {
        return r;
    }
    fl_digest_hex(&checkpoint, hex);
    tell(s->d, "published %" PRIu64 " %s", s->round, hex);
    if ((r = fl_store_audit(s->w->store, s->round, "driver", "published", e)) != 0) {
        return r;
    }
    tell(s->d, "audit %" PRIu64, s->round);
    return fl_store_jobs(s->w->store, on_job, s->w, e);
}

static int run(struct step *s, int (*step)(struct step *s, struct fl_err *e), struct fl_err *e)
{
    for (;;) {
        int r = step(s, e);
        if (r == 0) {
            return 0;
        }
        if (!s->d->failed || (r = s->d->failed(s->d->arg, e)) != 0) {
            return r;
        }
    }
}

int driver_act(const struct driver *d, struct fl_err *e)
{
    struct world w = {0};
    struct step s = {.d = d, .w = &w};
    struct fl_seed seed;
    int r;

    fl_seed_from_u64(d->seed, &seed);
    fl_rng_init(&w.rng, &seed, 0);
    (void)((r = run(&s, step_open, e)) || (r = run(&s, step_found, e)) ||
           (r = run(&s, step_enrol, e)) || (r = run(&s, step_job, e)));
    while (r == 0 && w.job.round < d->rounds) {
        r = run(&s, step_round, e);
        for (s.exchange = s.closed; s.exchange < DRIVER_EXCHANGES && r == 0; s.exchange++) {
            (void)((r = run(&s, step_commit, e)) || (r = run(&s, step_close, e)));
        }
        if (r == 0) {
            r = run(&s, step_publish, e);
        }
    }
    fl_store_close(w.store);
    return r;
}

/* ---- verifying ---- */

struct check {
    struct fl_store *store;
    struct world w;
    uint64_t open, audited; /* the open round; 0 = none */
    uint32_t closed;
};

#define BROKEN(...) fl_fail(e, FL_R_STORE_MISMATCH, __VA_ARGS__)

static int on_audit(void *arg, uint64_t wall_ms, const char *who, const char *what)
{
    (void)who;
    (void)what;
    *(uint64_t *)arg = wall_ms;
    return 1;
}

static int file_is(const char *path, const uint8_t *bytes, size_t size)
{
    uint8_t *got;
    size_t n;

    if (fl_file_read(path, size + 1, &got, &n, NULL) != 0) {
        return 0;
    }
    int same = n == size && memcmp(got, bytes, size) == 0;
    fl_free(got);
    return same;
}

static int verify_commit(struct check *c, uint64_t round, uint32_t exchange, uint64_t agent,
                         const char *hex, struct fl_err *e)
{
    static uint8_t bytes[UPLOAD_MAX];
    struct fl_store_update u = update_of(round, exchange, agent, bytes);
    char path[FL_STORE_PATH_MAX];
    struct fl_digest there, promised;
    int r = fl_store_update_find(c->store, 1, round, exchange, agent, &there, e);

    if (r < 0) {
        return r;
    }
    if (r == 0 || !fl_digest_from_hex(hex, &promised) || !fl_digest_equal(&there, &promised)) {
        return BROKEN("the update is not recorded");
    }
    if (round == c->open) {
        fl_store_upload_path(c->store, incarnation, &u, path);
        if (!file_is(path, bytes, u.size)) {
            return BROKEN("the update's bytes are not there");
        }
    }
    return 0;
}

static int verify_published(struct check *c, uint64_t round, const char *hex, struct fl_err *e)
{
    struct fl_digest promised;

    if (c->w.job.round < round) {
        return BROKEN("round %" PRIu64 " is the last published one", c->w.job.round);
    }
    if (c->w.job.round == round && (!fl_digest_from_hex(hex, &promised) ||
                                    !fl_digest_equal(&promised, &c->w.job.checkpoint))) {
        return BROKEN("another checkpoint is published");
    }
    return 0;
}

static int verify_fact(struct check *c, const char *line, struct fl_err *e)
{
    uint64_t a = 0, agent = 0;
    uint32_t x = 0, mask = 0, got[2] = {0};
    char hex[FL_DIGEST_HEX] = "";

    if (sscanf(line, "agent %" SCNu64, &a) == 1) {
        return c->w.agents >= a ? 0 : BROKEN("the agent is not enrolled");
    }
    if (strcmp(line, "job 1") == 0) {
        return c->w.has_job ? 0 : BROKEN("there is no job");
    }
    if (sscanf(line, "open %" SCNu64, &a) == 1) {
        return c->w.job.round >= a || c->open == a ? 0 : BROKEN("the round is not open");
    }
    if (sscanf(line, "invited %" SCNu64 " %u", &a, &x) == 2) {
        int r = fl_store_members(c->store, 1, a, x, on_member, got, e);
        return r != 0 || got[1] == 30 ? r : BROKEN("not all are members");
    }
    if (sscanf(line, "commit %" SCNu64 " %u %" SCNu64 " %64s", &a, &x, &agent, hex) == 4) {
        return verify_commit(c, a, x, agent, hex, e);
    }
    if (sscanf(line, "closed %" SCNu64 " %u %u", &a, &x, &mask) == 3) {
        int r = fl_store_members(c->store, 1, a, x, on_member, got, e);
        if (r != 0) {
            return r;
        }
        return got[0] == mask && (a != c->open || c->closed > x) ? 0 : BROKEN("not closed so");
    }
    if (sscanf(line, "published %" SCNu64 " %64s", &a, hex) == 2) {
        return verify_published(c, a, hex, e);
    }
    if (sscanf(line, "audit %" SCNu64, &a) == 1) {
        return c->audited >= a ? 0 : BROKEN("the audit ends at %" PRIu64, c->audited);
    }
    return BROKEN("not understood");
}

/* What must be true whatever was promised. */
static int verify_always(struct check *c, struct fl_err *e)
{
    uint32_t masks[DRIVER_EXCHANGES] = {0};
    uint8_t bytes[MODEL];
    char path[FL_STORE_PATH_MAX];
    int r;

    if (!c->w.has_job) {
        return 0;
    }
    if (c->w.job.state != FL_JOB_RUNNING) {
        return BROKEN("the job failed: %s", c->w.job.why);
    }
    for (uint32_t x = 0; x < DRIVER_EXCHANGES && c->w.job.round > 0; x++) {
        uint32_t got[2] = {0};
        r = fl_store_members(c->store, 1, c->w.job.round, x, on_member, got, e);
        if (r != 0) {
            return r;
        }
        masks[x] = got[0];
    }
    model_bytes(c->w.job.round, masks, bytes);
    fl_store_checkpoint_path(c->store, incarnation, c->w.job.round, &c->w.job.checkpoint, path);
    return file_is(path, bytes, MODEL)
               ? 0
               : BROKEN("the model does not follow from the closed members");
}

int driver_verify(const char *dir, const char *facts, struct fl_err *e)
{
    struct fl_store_quota quota = {.keep_models = 2};
    struct fl_store_round round;
    struct check c = {0};
    uint8_t id[16];
    int r = fl_store_open(dir, &quota, &c.store, id, e);

    if (r != 0) {
        return r;
    }
    if ((r = fl_store_agents(c.store, on_agent, &c.w.agents, e)) == 0 &&
        (r = fl_store_jobs(c.store, on_job, &c.w, e)) == 0 &&
        (r = fl_store_round_load(c.store, 1, &round, e)) == 1) {
        c.open = round.round;
        c.closed = round.closed;
        fl_free(round.text);
        r = 0;
    }
    if (r == 0 && (r = fl_store_audits(c.store, 1, on_audit, &c.audited, e)) == 1) {
        r = 0;
    }
    if (r == 0) {
        r = verify_always(&c, e);
    }
    for (const char *at = facts; r == 0 && *at;) {
        char line[256];
        size_t n = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, at);
        if ((r = verify_fact(&c, line, e)) != 0) {
            r = fl_wrap(e, r, "promised \"%s\"", line);
        }
        at += at[n] ? n + 1 : n;
    }
    fl_store_close(c.store);
    return r;
}
