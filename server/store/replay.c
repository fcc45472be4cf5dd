/*
 * What a published round can be computed from again: its description, the checkpoint before it, and
 * the updates that were folded. Their bytes stay for the last `keep_rounds` rounds of each job, as
 * files that the records of the chain name (transcript.c); they count against the quota, and go
 * when newer rounds are published.
 */
#include "common/base/mem.h"
#include "server/store/internal.h"

#include <stdio.h>
#include <string.h>

bool fl_store_retains(const struct fl_store *s, uint64_t published, uint64_t round)
{
    return round <= published && s->quota.keep_rounds > published - round;
}

int fl_store_replay_files(struct fl_store *s, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_UPLOADS_KEPT);
    uint8_t incarnation[FL_INCARNATION_SIZE];
    char path[FL_STORE_PATH_MAX];
    struct fl_digest digest;
    int r;

    fl_query_u64(&q, s->quota.keep_rounds);
    while ((r = fl_query_step(&q, e)) == 1) {
        fl_column_blob(&q, 0, incarnation, sizeof incarnation);
        fl_column_blob(&q, 5, digest.bytes, sizeof digest.bytes);
        struct fl_file_key key = fl_file_key(incarnation, fl_column_u64(&q, 1),
                                             (uint32_t)fl_column_u64(&q, 2), fl_column_u64(&q, 3));
        uint64_t size = fl_column_u64(&q, 4);
        fl_files_path(&s->files, &key, &digest, path);
        if (fl_files_has_size(path, size, NULL) != 0) {
            continue; /* of a time when fewer were kept */
        }
        if ((r = fl_files_take(&s->files, &key, &digest, size, true, e)) != 0) {
            break;
        }
        fl_files_retained(&s->files, &key);
    }
    fl_query_end(&q);
    return r;
}

static int read_updates(struct fl_store *s, struct fl_store_replay *x, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_TRANSCRIPT_UPDATES);
    size_t room = 0;
    int r;

    fl_query_u64(&q, x->job);
    fl_query_u64(&q, x->round);
    while ((r = fl_query_step(&q, e)) == 1) {
        if (x->update_count == room) {
            room = room ? 2 * room : 64;
            if (!fl_try_grow((void **)&x->updates, room, sizeof *x->updates)) {
                r = fl_fail(e, FL_R_NOMEM, "updates of a round");
                break;
            }
        }
        struct fl_store_update *u = &x->updates[x->update_count++];
        *u = (struct fl_store_update){.job = x->job,
                                      .round = x->round,
                                      .exchange = (uint32_t)fl_column_u64(&q, 0),
                                      .agent = fl_column_u64(&q, 1),
                                      .weight = (uint32_t)fl_column_u64(&q, 2),
                                      .size = fl_column_u64(&q, 3)};
        if (!fl_column_blob(&q, 4, u->digest.bytes, sizeof u->digest.bytes)) {
            r = fl_fail(e, FL_R_STORE_CORRUPT, "a member's row is damaged");
            break;
        }
    }
    fl_query_end(&q);
    return r;
}

static int read_round(struct fl_store *s, struct fl_store_replay *x, struct fl_err *e)
{
    struct fl_query q = fl_query(&s->db, FL_SQL_REPLAY);

    fl_query_u64(&q, x->job);
    fl_query_u64(&q, x->round);
    int r = fl_query_step(&q, e);
    if (r == 0) {
        r = fl_fail(e, FL_R_NO_OBJECT,
                    "round %llu cannot be replayed: it is not published, or what it was made from "
                    "is not kept any more (retention.keep_rounds)",
                    (unsigned long long)x->round);
    } else if (r == 1) {
        x->text_size = (size_t)sqlite3_column_bytes(q.stmt, 0);
        x->text = fl_try(x->text_size + 1, 1);
        r = !x->text ? fl_fail(e, FL_R_NOMEM, "a description")
            : fl_column_blob(&q, 1, x->checkpoint.bytes, sizeof x->checkpoint.bytes) &&
                    fl_column_blob(&q, 2, x->before.bytes, sizeof x->before.bytes)
                ? 0
                : fl_fail(e, FL_R_STORE_CORRUPT, "a transcript's row is damaged");
        if (r == 0) {
            memcpy(x->text, sqlite3_column_blob(q.stmt, 0), x->text_size);
        }
    }
    fl_query_end(&q);
    return r;
}

int fl_store_replay(struct fl_store *s, uint64_t job, uint64_t round, struct fl_store_replay *ret,
                    struct fl_err *e)
{
    struct fl_store_replay x = {.job = job, .round = round};
    int r = read_round(s, &x, e);

    r = r ? r : read_updates(s, &x, e);
    if (r) {
        fl_store_replay_fini(&x);
        return r;
    }
    *ret = x;
    return 0;
}

void fl_store_replay_fini(struct fl_store_replay *x)
{
    fl_free(x->text);
    fl_free(x->updates);
    memset(x, 0, sizeof *x);
}
