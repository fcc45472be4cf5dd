/* What the files of the store share; nobody else includes this. */
#ifndef SERVER_STORE_INTERNAL_H
#define SERVER_STORE_INTERNAL_H

#include "server/store/db.h"
#include "server/store/files.h"
#include "server/store/store.h"

struct fl_store {
    char dir[FL_STORE_NAME_MAX];
    int lock;
    struct fl_store_quota quota;
    struct fl_db db;
    struct fl_files files;
};

/* Facts about one round: 1 found, 0 no such round, negative error. */
struct fl_round_facts {
    struct fl_digest plan, base, checkpoint;
    uint32_t closed;
    bool published;
};
int fl_round_facts(struct fl_store *s, uint64_t job, uint64_t round, struct fl_round_facts *ret,
                   struct fl_err *e);

/* -FL_R_NO_JOB when there is none. */
struct fl_job_facts {
    uint8_t incarnation[FL_INCARNATION_SIZE];
    enum fl_job_state state;
    uint64_t round;
    struct fl_digest checkpoint, model;
    uint64_t model_size;
};
int fl_job_facts(struct fl_store *s, uint64_t job, struct fl_job_facts *ret, struct fl_err *e);

/* Inside the transaction that publishes, while the round's rows are there: adds its record. */
int fl_transcript_add(struct fl_store *s, uint64_t job, uint64_t round,
                      const struct fl_digest *checkpoint, const struct fl_digest *model,
                      uint64_t published_ms, struct fl_err *e);

/* Do the updates of this round stay, when `published` is the last one? */
bool fl_store_retains(const struct fl_store *s, uint64_t published, uint64_t round);
/* At open: slots for those that are there. */
int fl_store_replay_files(struct fl_store *s, struct fl_err *e);

uint64_t fl_store_wall_ms(void);

#endif
