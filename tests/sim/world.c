#include "tests/sim/world.h"

#include "common/base/mem.h"
#include "tests/lib/check_main.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TRACE_SIZE = 64 * 1024, PATIENCE_MS = 100 * 1000 * 1000, SPIN_MAX = 1000 };

const uint8_t sim_incarnation[FL_INCARNATION_SIZE] = "one incarnation";

static void say_member(void *arg, const struct fl_member_view *m, const char *text)
{
    (void)arg;
    fprintf(stderr, "%c %s\n", (char)('a' + m->agent - 1), text);
}

void sim_fail(struct world *w, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (w->trace) { /* Check's own messages are short */
        fputs(w->trace, stderr);
    }
    if (w->c.up) {
        struct fl_round_view v;
        fl_round_view(w->c.round, &v);
        fprintf(stderr, "round %d.%u %s: %s\n", (int)v.round, v.exchange,
                fl_round_phase_name(v.phase), v.unblock);
        fl_round_explain(w->c.round, 0, say_member, NULL);
    }
    for (uint32_t i = 0; i < w->conf.sites; i++) {
        const struct fl_agent *a = &w->site[i].agent;
        fprintf(stderr, "site %c: %s, %s%s\n", (char)('a' + i),
                w->site[i].up ? fl_agent_state_name(a->state) : "down", fl_agent_link_name(a->link),
                w->site[i].operating ? ", operating" : "");
    }
    ck_abort_msg("seed %" PRIu64 ", at %" PRIu64 " ms, item %" PRIu64 ", site item %" PRIu64
                 " (crash at %" PRIu64 ", site crash at %" PRIu64 "): %s",
                 w->conf.seed, w->now, w->items, w->site_items, w->conf.coordinator_crash_at,
                 w->conf.site_crash_at, text);
    abort();
}

void sim_trace(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (!w->trace) {
        return;
    }
    size_t used = strlen(w->trace);
    va_start(ap, fmt);
    vsnprintf(w->trace + used, TRACE_SIZE - used, fmt, ap);
    va_end(ap);
    used = strlen(w->trace);
    if (used + 1 < TRACE_SIZE) {
        w->trace[used] = '\n';
        w->trace[used + 1] = 0;
    }
}

/* ---- chance and time ---- */

bool sim_chance(struct world *w, uint32_t in_a_million)
{
    if (in_a_million == 0 || w->faults >= w->conf.faults_max ||
        fl_rng_below(&w->rng, 1000000) >= in_a_million) {
        return false;
    }
    w->faults++;
    return true;
}

uint64_t sim_delay(struct world *w, uint64_t most)
{
    return w->conf.steady ? 1 : 1 + fl_rng_below(&w->rng, most);
}

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

/* A binary heap. The event is filled in by the caller before anything else is scheduled: its place
 * depends on `at` and `seq` alone. */
struct sim_event *sim_at(struct world *w, uint64_t delay, enum sim_ev type)
{
    struct sim_event ev = {.at = w->now + delay, .seq = w->seq++, .type = type};

    if (w->heap_count == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity ? 2 * w->heap_capacity : 64;
        void *p = w->heap;
        if (w->heap_capacity > 100000 || !fl_try_grow(&p, w->heap_capacity, sizeof *w->heap)) {
            sim_fail(w, "too many events");
        }
        w->heap = p;
    }
    uint32_t i = w->heap_count++;
    while (i > 0 && earlier(&ev, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = ev;
    return &w->heap[i];
}

static struct sim_event pop(struct world *w)
{
    struct sim_event top = w->heap[0], last = w->heap[--w->heap_count];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->heap_count) {
            break;
        }
        if (child + 1 < w->heap_count && earlier(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!earlier(&w->heap[child], &last)) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->heap_count > 0) {
        w->heap[i] = last;
    }
    return top;
}

/* ---- laws ---- */

/* An Ack is only ever said of what is on the disk, and what was said stays true. */
void law_acked_is_durable(struct world *w, uint64_t agent, const struct fl_key *key,
                          const struct fl_digest *digest)
{
    const struct disk_update *u = disk_made(&w->disk, key->round, key->exchange, agent);

    if (!u || !fl_digest_equal(&u->digest, digest)) {
        sim_fail(w, "agent %d was acknowledged for round %d, but that is not on the disk",
                 (int)agent, (int)key->round);
    }
    for (uint32_t i = 0; i < w->acked_count; i++) {
        if (w->acked[i].agent == agent && fl_key_equal(&w->acked[i].key, key)) {
            return;
        }
    }
    if (w->acked_count == RECORDS_MAX) {
        sim_fail(w, "too many acknowledgements");
    }
    w->acked[w->acked_count++] = (struct sim_acked){.agent = agent, .key = *key, .digest = *digest};
}

/* A close names exactly what is committed, is written once, and leaves nobody out who was told that
 * its update counts. */
void law_closed(struct world *w, uint32_t exchange, const uint64_t *list, uint32_t count)
{
    struct disk *d = &w->disk;
    uint32_t committed = 0;

    for (uint32_t i = 0; i < d->updates; i++) {
        committed += d->update[i].round == d->published + 1 && d->update[i].exchange == exchange;
    }
    if (committed != count || count < w->rules.exchange[exchange].quorum ||
        count > w->rules.exchange[exchange].members) {
        sim_fail(w, "%u members are closed in, %u are committed", count, committed);
    }
    for (uint32_t i = 0; i < count; i++) {
        if ((i > 0 && list[i - 1] >= list[i]) ||
            !disk_find(d, d->published + 1, exchange, list[i])) {
            sim_fail(w, "member %d of the close is out of order or not committed", (int)list[i]);
        }
    }
    if (d->closed[exchange] && (d->listed[exchange] != count ||
                                memcmp(d->list[exchange], list, count * sizeof *list) != 0)) {
        sim_fail(w, "a closed membership changed");
    }
    for (uint32_t i = 0; i < w->acked_count; i++) {
        const struct sim_acked *a = &w->acked[i];
        const struct disk_update *u = disk_made(d, a->key.round, a->key.exchange, a->agent);
        bool found = !u || u->round != d->published + 1 || u->exchange != exchange;
        for (uint32_t k = 0; k < count; k++) {
            found = found || list[k] == a->agent;
        }
        if (!found) {
            sim_fail(w, "agent %d was acknowledged and is not closed in", (int)a->agent);
        }
    }
}

/* What is published is what anybody computes from the records, in any order (here: backwards). */
void law_published(struct world *w)
{
    struct disk *d = &w->disk;
    struct sim_sums sums;
    struct sim_made made;

    sums_begin(w, &sums);
    for (uint32_t x = 0; x < w->rules.exchange_count; x++) {
        bool last = x + 1 == w->rules.exchange_count;
        if (!d->closed[x]) {
            sim_fail(w, "published before exchange %u was closed", x);
        }
        sums_reset(w, &sums);
        for (uint32_t i = d->listed[x]; i-- > 0;) {
            if (sums_fold(w, &sums, disk_find(d, d->published + 1, x, d->list[x][i])) != 0) {
                sim_fail(w, "a committed update does not fold");
            }
        }
        if ((last ? sums_finish(w, &sums, x, &made) : sums_between(w, &sums, x)) != 0) {
            sim_fail(w, "the sums do not finish");
        }
    }
    if (made.models != d->next.models || made.state_size != d->next.state_size ||
        memcmp(made.model, d->next.model, sizeof made.model) != 0 ||
        memcmp(made.state, d->next.state, sizeof made.state) != 0) {
        sim_fail(w, "the published models are not those of their records");
    }
    sums_end(w, &sums);
}

/* ---- one event ---- */

static void weather(struct world *w)
{
    uint32_t i = (uint32_t)fl_rng_below(&w->rng, w->conf.sites);

    if (sim_chance(w, w->conf.weather)) {
        struct sim_conn *c = net_find(w, w->site[i].conn);
        if (c && fl_rng_below(&w->rng, 2)) {
            net_break(w, c);
        } else if (w->site[i].up) {
            site_crash(w, i);
        }
    }
    if (w->faults < w->conf.faults_max) {
        sim_at(w, sim_delay(w, 200), EV_WEATHER);
    }
}

static void handle(struct world *w, struct sim_event *ev)
{
    struct sim_conn *c = net_find(w, ev->conn);

    switch (ev->type) {
    case EV_UP:
        if (c && c->alive && c->server_knows) {
            coordinator_message(w, c, &ev->msg);
        }
        break;
    case EV_DOWN:
        if (c && c->alive && c->site_knows) {
            site_message(w, c->site, &ev->msg);
        }
        break;
    case EV_CONNECT:
        if (w->site[ev->site].up && w->site[ev->site].epoch == ev->epoch) {
            w->site[ev->site].conn = w->c.up ? net_open(w, ev->site) : 0;
            if (w->site[ev->site].conn == 0) {
                site_closed(w, ev->site, -FL_R_CONNECT);
            } else {
                site_tell(w, ev->site, &(struct fl_agent_event){.type = FL_AGENT_EV_OPENED});
            }
        }
        break;
    case EV_SERVER_CLOSED:
        if (c && c->server_knows) {
            coordinator_closed(w, c);
        }
        break;
    case EV_SITE_CLOSED:
        if (c && c->site_knows) {
            uint32_t site = c->site;
            c->site_knows = false;
            net_forget(c);
            site_closed(w, site, ev->status);
        }
        break;
    case EV_LANE:
        if (w->c.up && w->c.epoch == ev->epoch) {
            lane_next(w, ev->number);
        }
        break;
    case EV_ANSWER:
        if (w->c.up && w->c.epoch == ev->epoch) {
            coordinator_tell(w, &ev->answer);
        }
        break;
    case EV_COORDINATOR_START:
        coordinator_start(w);
        break;
    case EV_SITE_START:
        if (!w->site[ev->site].away && !w->site[ev->site].up) {
            site_start(w, ev->site);
        }
        break;
    case EV_SITE_OP:
        if (w->site[ev->site].up && w->site[ev->site].epoch == ev->epoch &&
            w->site[ev->site].operating && w->site[ev->site].operation == ev->number) {
            site_operated(w, ev->site);
        }
        break;
    case EV_SITE_CHUNK:
        if (w->site[ev->site].up && w->site[ev->site].epoch == ev->epoch &&
            w->site[ev->site].uploading && w->site[ev->site].upload == ev->number) {
            site_chunk(w, ev->site);
        }
        break;
    case EV_WEATHER:
        weather(w);
        break;
    case EV_OPERATOR:
        if (w->c.up && w->c.epoch == ev->epoch) {
            coordinator_tell(w, &(struct fl_round_event){.type = (enum fl_round_ev)ev->number});
        }
        break;
    }
}

/* The moment of the next timer, and who it is for (SITES_MAX = the coordinator). */
static uint64_t next_timer(const struct world *w, uint32_t *ret_who)
{
    uint64_t best = UINT64_MAX;

    if (w->c.up && fl_round_deadline(w->c.round) < best) {
        best = fl_round_deadline(w->c.round);
        *ret_who = SITES_MAX;
    }
    for (uint32_t i = 0; i < w->conf.sites; i++) {
        if (w->site[i].up && fl_agent_deadline(&w->site[i].agent) < best) {
            best = fl_agent_deadline(&w->site[i].agent);
            *ret_who = i;
        }
    }
    return best;
}

static void begin(struct world *w, const struct sim_conf *conf)
{
    struct fl_seed seed;

    *w = (struct world){.conf = *conf, .now = 1000, .next_conn = 1};
    fl_seed_from_u64(conf->seed, &seed);
    fl_rng_init(&w->rng, &seed, 0);
    w->trace = conf->trace ? fl_new(1, TRACE_SIZE) : NULL;
    w->strategy = conf->exchanges == 2
                      ? &sim_twostep
                      : fl_strategy_find(conf->strategy ? conf->strategy : "fedavg");
    w->plan = fl_new(1, sizeof *w->plan);
    w->plan->rounds = conf->rounds;
    w->plan->seed = 7;
    w->plan->grid.bits = 16;
    w->plan->grid.step = -6;
    w->plan->layout.shared.elements = ELEMENTS;
    w->plan->layout.shared.count = 1;
    w->plan->layout.shared.at[0].count = ELEMENTS;
    w->plan->setting.homes = SITES_MAX;
    w->plan->setting.fedcac = (struct fl_fedcac_conf){.tau = 0.5, .partners = 1, .decay = 0.9};
    if (w->strategy == fl_strategy_find("flhc")) {
        w->plan->setting.bubble = (struct fl_bubble_conf){
            .by = FL_BUBBLE_ONCE, .model = "fedavg", .most = 3, .minimum = 1, .after = 1};
    }
    w->plan->weighting = FL_WEIGHT_EXAMPLES;
    w->plan->max_weight = 4;
    if (conf->buffer) {
        w->plan->setting.buffer = (struct fl_buffer_conf){conf->buffer, conf->staleness};
        w->plan->weighting = FL_WEIGHT_EQUAL;
        w->plan->max_weight = FL_BUFFER_FRESH;
    }
    w->plan->server.lr = 0.75f;
    w->plan->server.momentum = 0.5f;
    w->plan->round = (struct fl_round_conf){.members = conf->members,
                                            .quorum = conf->quorum,
                                            .over_select = conf->over_select,
                                            .deadline_ms = conf->deadline_ms,
                                            .fill_ms = 500,
                                            .attempts = conf->attempts};
    fl_strategy_rules(w->plan, 1, &w->rules);
    sums_initial(w);
    if (conf->exchanges == 2) {
        w->rules.exchange_count = 2;
        w->rules.exchange[1] = w->rules.exchange[0];
        memcpy(w->rules.exchange[0].name, "descriptor", sizeof "descriptor");
        w->rules.exchange[1].same_cohort = conf->same_cohort;
    }
    if (fl_round_rules_check(&w->rules, NULL) != 0) {
        sim_fail(w, "the rules of this simulation contradict each other");
    }
    sim_at(w, 0, EV_COORDINATOR_START);
    if (conf->weather > 0) {
        sim_at(w, 1, EV_WEATHER);
    }
    for (uint32_t i = 0; i < conf->sites; i++) {
        sim_at(w, 10 * (i + 1), EV_SITE_START)->site = i;
    }
}

void sim_run(struct world *w, const struct sim_conf *conf)
{
    uint32_t spins = 0;
    uint64_t before = 0;

    begin(w, conf);
    while (!w->disk.done) {
        uint32_t who = 0;
        uint64_t timer = next_timer(w, &who);
        uint64_t event = w->heap_count ? w->heap[0].at : UINT64_MAX;
        if (timer == UINT64_MAX && event == UINT64_MAX) {
            sim_fail(w, "nothing will ever happen again");
        }
        uint64_t next = timer < event ? timer : event;
        w->now = next > w->now ? next : w->now;
        if (w->now > PATIENCE_MS) {
            sim_fail(w, "no end in sight");
        }
        spins = w->now == before ? spins + 1 : 0;
        before = w->now;
        if (spins > SPIN_MAX) {
            sim_fail(w, "time stands still");
        }
        if (event <= timer) {
            struct sim_event ev = pop(w);
            handle(w, &ev);
        } else if (who == SITES_MAX) {
            coordinator_tell(w, &(struct fl_round_event){.type = FL_ROUND_EV_TICK});
        } else {
            site_tell(w, who, &(struct fl_agent_event){.type = FL_AGENT_EV_TICK});
        }
        if (w->conf.script) {
            w->conf.script(w);
        }
    }
}

void sim_free(struct world *w)
{
    w->conf.coordinator_crashes = 0;
    if (w->c.up) {
        coordinator_crash(w);
    }
    fl_free(w->plan);
    fl_free(w->heap);
    fl_free(w->trace);
}
