/*
 * A federation in one process: the coordinator's cores (round, roster, peer, strategy), the agents'
 * core, and around them a small world of our own with a clock, a network, a disk for the
 * coordinator and one for each agent. Everything is drawn from one seed, so a failure is a number
 * that can be run again.
 *
 * What the world may do to them: delay any message, break any connection (what is in flight is
 * lost), crash the coordinator before any item and with any operation in flight, crash an agent the
 * same way, fill the disk, damage an upload, let a fold fail half way, pause the job. What it
 * checks is in world.c ("law_..."): after a run nobody needs to look at it.
 *
 *   world.c         clock, queue, chance, laws        net.c     connections and messages
 *   coordinator.c   shell of the server cores         lane.c    its work off the loop
 *   disk.c          what survives the coordinator     site.c    shell of the agent core
 *   sums.c          what a round computes with
 *   twostep.c       a strategy of two exchanges
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "client/core/agent.h"
#include "common/base/rng.h"
#include "server/core/peer.h"
#include "server/core/roster.h"
#include "server/core/round.h"
#include "server/strategy/strategy.h"

enum {
    SITES_MAX = 10,
    ELEMENTS = 5,
    UPDATE_SIZE = 2 * ELEMENTS, /* 16 bits each */
    CHUNK = 4,
    STATE_MAX = 2048,
    MODELS_MAX = SITES_MAX + 1,
    EXCHANGES_MAX = 2,
    CONNS_MAX = 64,
    LATE_ROUNDS = 3,
    RECORDS_MAX = 1024,
    LANE_MAX = 256,
};

/* ---- what happens, and how likely ---- */

struct world;

struct sim_conf {
    uint64_t seed;
    uint32_t sites, members, quorum, over_select, rounds, attempts, exchanges;
    const char *strategy; /* of one exchange: NULL = fedavg, fedcac (a model for each agent), flhc
                             (bubbles) */
    uint64_t deadline_ms;
    bool same_cohort;
    uint32_t buffer, staleness; /* of fedbuff; members are then at work at a time */
    /* chances in a million: of a connection per message, of a crash per item and per operation, ...
     */
    uint32_t breaks, coordinator_crashes, site_crashes, disk_full, damage, fold_fails, declines,
        pauses, weather;
    uint32_t faults_max; /* after so many the world is kind, so that every run ends */
    /* exactly one crash, before the n-th item (1, 2, ...); 0 = none */
    uint64_t coordinator_crash_at, site_crash_at;
    bool steady;                     /* every delay is 1 ms: for stories */
    void (*script)(struct world *w); /* called after every event: stories act here */
    bool trace;
};

/* ---- messages ---- */

enum sim_msg_type {
    MSG_HELLO,
    MSG_WELCOME,
    MSG_ASK,
    MSG_TASK,
    MSG_ACCEPT,
    MSG_DECLINE,
    MSG_FETCH,
    MSG_OBJECT,
    MSG_OFFER,
    MSG_RESUME,
    MSG_CHUNK,
    MSG_ACK,
    MSG_OVER,
    MSG_REFUSE,
};

struct sim_msg {
    enum sim_msg_type type;
    struct fl_key key;
    bool has_key;
    struct fl_digest digest, plan, base;
    uint64_t size, offset, left_ms;
    uint32_t weight;
    int reason;
    uint8_t data[CHUNK];
};

struct sim_conn {
    uint64_t id;
    uint32_t site;                 /* index */
    bool alive;                    /* carries messages */
    bool server_knows, site_knows; /* have not yet seen its end */
    uint64_t last_up, last_down;
    struct fl_peer peer;
    bool receiving; /* chunks are taken for this */
    struct fl_key key;
    struct fl_digest digest;
};

/* ---- the coordinator's disk: what is here survives ---- */

struct disk_update {
    uint64_t round, base, agent, size; /* base: the round of the task it was made for */
    uint32_t exchange, weight;
    struct fl_digest digest;
    uint8_t bytes[UPDATE_SIZE];
};

struct disk_spool {
    bool used, sealed;
    uint64_t round, size, durable;
    uint64_t received; /* not durable */
    uint32_t damaged;
    uint32_t exchange;
    struct fl_digest digest;
    uint8_t bytes[UPDATE_SIZE];
};

/* The content of a checkpoint. */
struct sim_made {
    uint32_t models;
    float model[MODELS_MAX][ELEMENTS];
    uint8_t state[STATE_MAX];
    size_t state_size;
};

struct disk {
    uint64_t published;
    bool paused, done;
    uint32_t models;
    float model[MODELS_MAX][ELEMENTS];
    uint8_t state[STATE_MAX];
    size_t state_size;
    bool open;
    struct fl_digest plan;
    uint64_t member[EXCHANGES_MAX][RECORDS_MAX], base[EXCHANGES_MAX][RECORDS_MAX];
    uint32_t members[EXCHANGES_MAX];
    struct disk_update update[RECORDS_MAX];
    uint32_t updates;
    bool closed[EXCHANGES_MAX];
    uint64_t list[EXCHANGES_MAX][SITES_MAX];
    uint32_t listed[EXCHANGES_MAX];
    bool has_checkpoint;
    struct fl_digest checkpoint;
    struct sim_made next;
    struct disk_spool spool[SITES_MAX];
    struct fl_digest history[64]; /* of every published checkpoint */
};

/* ---- the coordinator ---- */

struct sim_sums {
    void *shared, *slot[MODELS_MAX];
    uint32_t models;
    float model[MODELS_MAX][ELEMENTS]; /* as they were read when the round began */
};

enum op_type {
    OP_OPEN,
    OP_ENLIST,
    OP_COMMIT,
    OP_CLOSE,
    OP_PUBLISH,
    OP_SEAL,
    OP_FOLD,
    OP_REFOLD,
    OP_FINISH
};

struct op {
    enum op_type type;
    struct fl_round_item item;
    uint64_t list[SITES_MAX];
};

struct lane {
    struct op op[LANE_MAX];
    uint32_t first, count;
};

struct coordinator {
    bool up;
    uint32_t epoch;
    struct fl_roster *roster;
    struct fl_round *round;
    struct lane lane[2]; /* 0 store and spools, 1 sums */
    struct sim_sums sums;
    bool stepping;
    struct fl_round_event queue[64];
    uint32_t queued;
};

/* ---- a site ---- */

struct site_release {
    struct fl_agent_offer offer;
    uint8_t bytes[UPDATE_SIZE];
    bool settled;
};

struct site {
    /* on its disk */
    struct fl_key intent[RECORDS_MAX];
    struct fl_digest intent_base[RECORDS_MAX];
    uint32_t intents;
    struct site_release release[RECORDS_MAX];
    uint32_t releases;
    /* in memory */
    bool up;
    bool away; /* a story keeps it down */
    uint32_t epoch;
    struct fl_agent agent;
    uint64_t conn; /* 0 = none */
    bool operating, cancelled;
    uint32_t operation; /* number of the one in flight */
    struct fl_agent_offer sealed;
    uint8_t sealed_bytes[UPDATE_SIZE];
    bool fetching;
    bool uploading;
    uint32_t upload; /* number of the one in flight */
    uint64_t upload_at;
};

/* ---- the world ---- */

enum sim_ev {
    EV_UP,            /* message to the coordinator */
    EV_DOWN,          /* message to a site */
    EV_CONNECT,       /* a site's call arrives */
    EV_SERVER_CLOSED, /* the coordinator sees the end of a connection */
    EV_SITE_CLOSED,
    EV_LANE,   /* the first operation of a lane ends */
    EV_ANSWER, /* its answer arrives */
    EV_COORDINATOR_START,
    EV_SITE_START,
    EV_SITE_OP,
    EV_SITE_CHUNK,
    EV_OPERATOR,
    EV_WEATHER, /* breaks or crashes somebody, whatever they are doing */
};

struct sim_event {
    uint64_t at, seq;
    enum sim_ev type;
    uint32_t site, epoch, number;
    uint64_t conn;
    int status;
    struct sim_msg msg;
    struct fl_round_event answer;
};

struct sim_acked {
    uint64_t agent;
    struct fl_key key;
    struct fl_digest digest;
};

struct world {
    struct sim_conf conf;
    struct fl_rng rng;
    uint64_t now, seq, next_conn;
    struct sim_event *heap;
    uint32_t heap_count, heap_capacity;
    struct sim_conn conn[CONNS_MAX];
    struct disk disk;
    struct coordinator c;
    struct site site[SITES_MAX];
    const struct fl_strategy *strategy;
    struct fl_plan *plan;
    struct fl_round_rules rules;
    struct sim_acked acked[RECORDS_MAX];
    uint32_t acked_count;
    uint64_t items, site_items; /* performed so far */
    uint32_t faults, crashes, site_crashes;
    uint32_t did[FL_ROUND_DO_DONE + 1]; /* items by kind */
    uint32_t late_acks, stale;          /* stale: updates that were committed in a later round */
    char *trace;                        /* 64 KiB when conf.trace */
    int step;                           /* of the script */
};

extern const uint8_t sim_incarnation[FL_INCARNATION_SIZE];
extern const struct fl_strategy sim_twostep;

/* world.c */
void sim_run(struct world *w, const struct sim_conf *conf); /* until the job is done */
void sim_free(struct world *w);
void sim_fail(struct world *w, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
void sim_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool sim_chance(struct world *w, uint32_t in_a_million); /* of a fault: counted */
uint64_t sim_delay(struct world *w, uint64_t most);
struct sim_event *sim_at(struct world *w, uint64_t delay, enum sim_ev type); /* fill in at once */
void law_acked_is_durable(struct world *w, uint64_t agent, const struct fl_key *key,
                          const struct fl_digest *digest);
void law_closed(struct world *w, uint32_t exchange, const uint64_t *list, uint32_t count);
void law_published(struct world *w);

/* sums.c */
void sums_initial(struct world *w);
void sums_begin(struct world *w, struct sim_sums *s);
void sums_end(struct world *w, struct sim_sums *s);
void sums_reset(struct world *w, struct sim_sums *s);
int sums_fold(struct world *w, struct sim_sums *s, const struct disk_update *u);
int sums_between(struct world *w, struct sim_sums *s, uint32_t exchange);
int sums_finish(struct world *w, struct sim_sums *s, uint32_t exchange, struct sim_made *ret);
/* Of the model that an agent starts from in the open round. */
struct fl_digest sums_base(struct world *w, const struct sim_sums *s, uint64_t agent);

/* net.c */
struct sim_conn *net_find(struct world *w, uint64_t id);
uint64_t net_open(struct world *w, uint32_t site);
void net_break(struct world *w, struct sim_conn *c);
void net_up(struct world *w, uint64_t conn, const struct sim_msg *m);
void net_down(struct world *w, uint64_t conn, const struct sim_msg *m);
void net_forget(struct sim_conn *c); /* when both ends know */

/* coordinator.c */
void coordinator_start(struct world *w);
void coordinator_crash(struct world *w);
void coordinator_tell(struct world *w, const struct fl_round_event *ev);
bool coordinator_accept(struct world *w, struct sim_conn *c);
void coordinator_closed(struct world *w, struct sim_conn *c);
void coordinator_message(struct world *w, struct sim_conn *c, const struct sim_msg *m);
const struct disk_update *disk_find(const struct disk *d, uint64_t round, uint32_t exchange,
                                    uint64_t agent);
/* By the round of its task, as the agent knows it. */
const struct disk_update *disk_made(const struct disk *d, uint64_t base, uint32_t exchange,
                                    uint64_t agent);

/* lane.c: 0 is the disk's, 1 that of the sums */
void lane_submit(struct world *w, uint32_t lane, enum op_type type, const struct fl_round_item *it);
void lane_next(struct world *w, uint32_t lane); /* the first operation ends */
void lane_perform(struct world *w, const struct op *op, struct fl_round_event *answer);

/* disk.c: performs one operation durably and fills in its answer's status. */
void disk_perform(struct world *w, const struct op *op, struct fl_round_event *answer);
void disk_crash(struct world *w); /* what was not durable is gone */

/* site.c */
void site_start(struct world *w, uint32_t i);
void site_crash(struct world *w, uint32_t i);
void site_tell(struct world *w, uint32_t i, const struct fl_agent_event *ev);
void site_message(struct world *w, uint32_t i, const struct sim_msg *m);
void site_operated(struct world *w, uint32_t i);
void site_chunk(struct world *w, uint32_t i);
void site_closed(struct world *w, uint32_t i, int status);

#endif
