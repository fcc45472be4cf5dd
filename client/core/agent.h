/*
 * One agent, as a pure state machine: an event in, a short list of things to do out. It opens no
 * file and no socket, reads no clock, knows no loop; client/host.c does what the list says and
 * reports back as events.
 *
 * Two things go on side by side. The *link* to the coordinator comes and goes; the *work* on one
 * task survives that from the moment the base model is here:
 *
 *   link   DOWN -> CONNECTING -> HELLO -> UP -> CLOSING -> DOWN          backoff with full jitter
 *
 *   work   REST -> PENDING? -> ASK -> LOOK -> FETCH_PLAN -> JUDGE -> FETCH_BASE
 *               -> FETCH_INPUT -> INTENT -> TRAIN -> SEAL -> HOLD? -> DEBIT -> DELIVER -> MARK ->
 * REST REST -> LOOK -> FETCH_PLAN -> FETCH_BASE -> EVALUATE -> REST   the final model of a job
 *
 * The order everything rests on is the order of these states: an intent is durable before training,
 * the update's bytes are synced before the debit that names them, and an Offer exists only behind a
 * durable debit. Whatever state is a verb of the shell has exactly one operation in flight, and
 * every operation ends in exactly one DONE, cancelled or not; so a shell never has two owners of
 * one buffer, and the machine never has to guess.
 *
 * After a crash nothing of this is remembered, and nothing needs to be: PENDING finds an update
 * that was debited and not acknowledged, LOOK finds the release for a task's key (the very same
 * bytes are offered again), and INTENT gives back the same seed for the same inputs.
 */
#ifndef CLIENT_CORE_AGENT_H
#define CLIENT_CORE_AGENT_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/plan/exchange.h"
#include "common/plan/plan.h"
#include "common/wire/ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FL_AGENT_TODO_MAX = 8,
    FL_AGENT_FINALS_MAX = 8,  /* final models one Rest may name */
    FL_AGENT_DAY = 24 * 60,   /* minutes */
    FL_AGENT_DAMAGED_MAX = 3, /* uploads of one update that arrived damaged */
    FL_AGENT_ONCE_TRIES = 6,  /* connections in vain before `once` gives up */
};

enum fl_agent_link {
    FL_AGENT_LINK_DOWN,
    FL_AGENT_LINK_CONNECTING,
    FL_AGENT_LINK_HELLO,
    FL_AGENT_LINK_UP,
    FL_AGENT_LINK_CLOSING,
};

/* In the order of the work. From PENDING on, all but DELIVER have one operation in flight. */
enum fl_agent_state {
    FL_AGENT_STATE_REST,
    FL_AGENT_STATE_ASK,
    FL_AGENT_STATE_PENDING, /* is an update released but not acknowledged? */
    FL_AGENT_STATE_LOOK,    /* what is known of this task: a release, its plan, its base */
    FL_AGENT_STATE_FETCH_PLAN,
    FL_AGENT_STATE_JUDGE, /* plan, site policy, budget, data */
    FL_AGENT_STATE_FETCH_BASE,
    FL_AGENT_STATE_FETCH_INPUT,
    FL_AGENT_STATE_INTENT,
    FL_AGENT_STATE_TRAIN, /* or whatever else this exchange asks for: client/produce.h */
    FL_AGENT_STATE_SEAL,  /* clip, noise, pack; bytes and private state synced */
    FL_AGENT_STATE_HOLD,  /* until the site's administrator approves or rejects */
    FL_AGENT_STATE_DEBIT,
    FL_AGENT_STATE_DELIVER,  /* offer, upload, await the answer */
    FL_AGENT_STATE_MARK,     /* settled: the ledger knows, the bytes may go */
    FL_AGENT_STATE_EVALUATE, /* the final model of a job */
    FL_AGENT_STATE_STOPPED,
    FL_AGENT_STATES,
};
const char *fl_agent_state_name(enum fl_agent_state s);
const char *fl_agent_link_name(enum fl_agent_link l);

enum fl_agent_deliver {
    FL_AGENT_DELIVER_HOLD, /* not offered on this connection */
    FL_AGENT_DELIVER_OFFERED,
    FL_AGENT_DELIVER_UPLOADING,
    FL_AGENT_DELIVER_SENT,
};

struct fl_agent_conf {
    uint32_t backoff_min_ms, backoff_max_ms;
    uint32_t patience_ms; /* for the answer to an offer, or to the last byte of an upload */
    uint32_t drain_ms;    /* how long STOP lets work that has begun go on */
    uint16_t window_from, window_to; /* minutes of the local day; equal = always */
    uint64_t max_base;               /* bytes of a model this site is willing to hold */
    bool hold;                       /* nothing is paid for or released before somebody approves */
    bool once; /* stop at the first Rest, or when an Ask is held longer than patience_ms */
};

/* What the coordinator wants: the message Task, or the final model of a job named in a Rest. */
struct fl_agent_task {
    struct fl_key key;
    char job[FL_PLAN_NAME_MAX];
    char exchange[FL_PLAN_NAME_MAX];
    struct fl_digest plan, base, input;
    uint64_t plan_size, base_size, update_size;
    uint64_t input_size;       /* 0 = there is none */
    uint64_t deadline_left_ms; /* 0 = none */
    bool final;
};

/* An update that exists: synced, and named by a durable debit once it is offered. */
struct fl_agent_offer {
    struct fl_key key;
    char job[FL_PLAN_NAME_MAX];
    struct fl_digest digest, plan, base;
    uint64_t size;
    uint32_t weight;
};

enum fl_agent_ev {
    FL_AGENT_EV_START,
    FL_AGENT_EV_TICK,     /* the deadline came, or a minute passed */
    FL_AGENT_EV_OPENED,   /* the link has TLS and a checked peer */
    FL_AGENT_EV_CLOSED,   /* the link is gone: status, retry_ms of a Bye */
    FL_AGENT_EV_WELCOME,  /* coordinator */
    FL_AGENT_EV_REST,     /* status = -reason, retry_ms, finals */
    FL_AGENT_EV_TASK,     /* task */
    FL_AGENT_EV_OVER,     /* key, status = -reason */
    FL_AGENT_EV_REFUSE,   /* has_key, key, status = -reason */
    FL_AGENT_EV_RESUME,   /* key, digest, offset */
    FL_AGENT_EV_ACK,      /* key, digest */
    FL_AGENT_EV_DONE,     /* the operation of `op` ended: status; have, offer, costs */
    FL_AGENT_EV_SENT,     /* the upload's last byte went out, or it ended early: status */
    FL_AGENT_EV_WITHDRAW, /* the site's administrator withdrew from task.job ("*" = all) */
    FL_AGENT_EV_STOP,     /* SIGTERM; a second one means now */
    FL_AGENT_EVS,
};

/* Answers of LOOK and PENDING. */
enum {
    FL_AGENT_HAVE_PLAN = 1,
    FL_AGENT_HAVE_BASE = 2,
    FL_AGENT_HAVE_INPUT = 16,
    FL_AGENT_HAVE_RELEASE = 4,  /* offer is filled, its bytes are there */
    FL_AGENT_HAVE_NO_DATA = 32, /* of SEAL: the site's data are not in it, nobody need approve */
    FL_AGENT_HAVE_SETTLED =
        8, /* released before and settled (bytes gone), or final model evaluated */
};

struct fl_agent_event {
    uint64_t now_ms;
    uint16_t minute; /* local minute of the day at now_ms */
    enum fl_agent_ev type;
    int status;
    uint32_t retry_ms;
    enum fl_agent_state op;
    unsigned have;
    bool has_key;
    bool costs; /* JUDGE: this task spends privacy budget */
    struct fl_key key;
    struct fl_digest digest;
    uint64_t offset;
    uint8_t coordinator[16];
    struct fl_agent_task task;
    struct fl_agent_offer offer; /* PENDING, LOOK (release), SEAL */
    const struct fl_agent_task *finals;
    uint32_t final_count;
};

enum fl_agent_do {
    FL_AGENT_DO_CONNECT,
    FL_AGENT_DO_HELLO,
    FL_AGENT_DO_CLOSE, /* with Bye(reason) */
    FL_AGENT_DO_ASK,
    FL_AGENT_DO_ACCEPT,
    FL_AGENT_DO_DECLINE, /* key, reason */
    FL_AGENT_DO_OP,      /* begin the operation of `op` */
    FL_AGENT_DO_CANCEL,  /* end the operation in flight soon; its DONE still comes */
    FL_AGENT_DO_OFFER,
    FL_AGENT_DO_UPLOAD,      /* from offset */
    FL_AGENT_DO_STOP_UPLOAD, /* SENT still comes, unless the link closes */
    FL_AGENT_DO_DROP,        /* forget the work in memory; why = reason, 0 = it is done */
    FL_AGENT_DO_STOPPED,
};

struct fl_agent_item {
    enum fl_agent_do type;
    enum fl_agent_state op;
    int reason; /* positive, 0 = none */
    uint64_t offset;
    struct fl_key key;
};

struct fl_agent_todo {
    uint32_t count;
    struct fl_agent_item at[FL_AGENT_TODO_MAX];
};

struct fl_agent {
    struct fl_agent_conf conf;
    struct fl_rng jitter;
    enum fl_agent_link link;
    enum fl_agent_state state;
    enum fl_agent_deliver deliver;
    struct fl_agent_task task;
    struct fl_agent_offer offer;
    uint8_t coordinator[16];
    uint64_t now_ms;
    uint16_t minute;
    uint32_t failures; /* connections in a row that gave nothing useful */
    uint32_t declines; /* tasks in a row that came to nothing here */
    uint32_t damaged;  /* uploads of this update that arrived damaged */
    uint32_t full;     /* refusals in a row for want of room on the other side */
    uint32_t busy;     /* refusals in a row since it was busy with something short */
    uint64_t retry_at, ask_at, offer_at, patience_at;
    uint64_t until; /* the task's deadline on our clock */
    uint64_t stop_at;
    uint64_t resume_from; /* of an upload that waits for the one before to end */
    int outcome;          /* of the update being settled: 0 acknowledged, -reason otherwise */
    int doom; /* reason why the work in flight ends when its operation does; 0 = it goes on */
    unsigned have;
    bool started, stopping, costs, upload_again;
    bool pending_known; /* nothing unacknowledged is left for this coordinator */
    bool rested;        /* a Rest came (for `once`) */
    uint32_t final_count, seen_next;
    struct fl_agent_task finals[FL_AGENT_FINALS_MAX];
    struct fl_agent_task seen[FL_AGENT_FINALS_MAX]; /* final models dealt with */
};

/* `jitter` seeds the backoff only. */
void fl_agent_init(struct fl_agent *a, const struct fl_agent_conf *conf,
                   const struct fl_seed *jitter);
/* Never fails: what a peer does wrong becomes a CLOSE, what a shell does wrong an assertion. */
void fl_agent_step(struct fl_agent *a, const struct fl_agent_event *ev, struct fl_agent_todo *todo);
/* When to step again with TICK at the latest; UINT64_MAX = no need. */
uint64_t fl_agent_deadline(const struct fl_agent *a);

/* True when `minute` of the day lies in the window (which may pass midnight). */
bool fl_agent_in_window(const struct fl_agent_conf *conf, uint16_t minute);

#endif
