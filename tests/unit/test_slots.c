/*
 * Three models in one checkpoint, round after round, through the store and the coordinator's own
 * code: a strategy with a slot for each third agent, whose finish mixes each slot with a bit of its
 * neighbour by tiles and looks at every update again. What comes out is compared with a naive twin.
 */
#include "server/co_compute.c"
#include "server/co_secure.c"
#include "server/co_sums.c"
#include "server/co_tune.c"

#include "common/math/grid.h"
#include "tests/lib/check_main.h"

#include <math.h>

enum { SLOTS = 3, AGENTS = 70, BYTES_STATE = 12 }; /* more agents than open files of a reader */

/* ---- what the two files need of the coordinator, and this test never reaches ---- */

int co_distrust_add(struct co_sums *s, struct fl_err *e)
{
    (void)s, (void)e;
    abort();
}
void co_op_job(struct co_op *op, const struct co_job *j)
{
    (void)op, (void)j, abort();
}
void co_answer(const struct co_op *op, const struct fl_round_event *ev)
{
    (void)op, (void)ev, abort();
}
void *co_op_new(struct co *co, size_t size, void (*run)(struct co_op *),
                void (*done)(struct co_op *))
{
    (void)co, (void)size, (void)run, (void)done;
    abort();
}
void co_submit(struct co *co, struct fl_lane *lane, struct co_op *op)
{
    (void)co, (void)lane, (void)op, abort();
}
void co_upload_judged(struct co *co, uint64_t job, const struct fl_store_update *u, int status,
                      const struct fl_err *e)
{
    (void)co, (void)job, (void)u, (void)status, (void)e, abort();
}
void co_store_failed(struct co *co, const struct co_op *op, const char *what)
{
    (void)co, (void)op, (void)what, abort();
}
struct co_job *co_job_by_id(struct co *co, uint64_t id)
{
    (void)co, (void)id;
    abort();
}
void co_secret_of(const struct co *co, const uint8_t incarnation[FL_INCARNATION_SIZE],
                  struct fl_seed *ret)
{
    (void)co, (void)incarnation, (void)ret, abort();
}

/* ---- a strategy ---- */

struct thirds {
    size_t elements;
    struct fl_grid grid;
    uint32_t rounds;
};
struct third {
    int64_t *sum;
    uint32_t members;
};

static int thirds_init(void *shared, const struct fl_plan *plan, struct fl_err *e)
{
    struct thirds *s = shared;

    (void)e;
    s->elements = plan->layout.shared.elements;
    s->grid = (struct fl_grid){plan->grid.bits, plan->grid.step};
    return 0;
}
static void thirds_fini(void *shared)
{
    (void)shared;
}
static uint32_t thirds_slots(const void *shared)
{
    (void)shared;
    return SLOTS;
}
static int third_new(const void *shared, void **ret, struct fl_err *e)
{
    struct third *t = fl_new(1, sizeof *t);

    (void)e;
    t->sum = fl_new(((const struct thirds *)shared)->elements, sizeof *t->sum);
    *ret = t;
    return 0;
}
static void third_reset(const void *shared, void *slot)
{
    struct third *t = slot;

    memset(t->sum, 0, ((const struct thirds *)shared)->elements * sizeof *t->sum);
    t->members = 0;
}
static void third_free(void *slot)
{
    fl_free(((struct third *)slot)->sum);
    fl_free(slot);
}
static int thirds_place(const void *shared, const uint64_t *agents, uint32_t count,
                        uint32_t *ret_slot, struct fl_err *e)
{
    (void)shared, (void)e;
    for (uint32_t i = 0; i < count; i++) {
        ret_slot[i] = (uint32_t)(agents[i] % SLOTS);
    }
    return 0;
}
static int thirds_fold(void *slot, const void *shared, const struct fl_update *u, struct fl_err *e)
{
    const struct thirds *s = shared;
    struct third *t = slot;
    uint8_t bytes[4096];
    int r = u->read(u->arg, 0, bytes, (size_t)u->size, e);

    t->members++;
    return r ? r : fl_grid_fold(&s->grid, bytes, (size_t)u->size, 0, s->elements, 1, t->sum, e);
}
static int thirds_finish(const void *shared, void *const *slots, uint32_t exchange,
                         struct fl_next *next, struct fl_err *e)
{
    const struct thirds *s = shared;
    uint8_t byte[2];
    uint64_t seen = 0;

    ck_assert_uint_eq(exchange, 0);
    ck_assert_uint_eq(next->base_count, SLOTS);
    ck_assert_uint_eq(next->put_count, SLOTS);
    ck_assert_uint_eq(next->updates.count, AGENTS);
    for (int pass = 0; pass < 2; pass++) { /* tiles over all of them: first and last bytes */
        for (uint32_t i = 0; i < next->updates.count; i++) {
            const struct fl_update *u = &next->updates.at[i];
            ck_assert_uint_eq(u->agent, i + 1); /* ascending, whatever came first */
            ck_assert_int_eq(u->read(u->arg, pass ? u->size - 2 : 0, byte, 2, e), 0);
            ck_assert_int_eq(u->read(u->arg, u->size - 1, byte, 2, e), -FL_R_OFFSET);
            seen++;
        }
    }
    ck_assert_uint_eq(seen, 2 * AGENTS);
    for (size_t first = 0; first < s->elements; first += 3) {
        size_t n = s->elements - first < 3 ? s->elements - first : 3;
        for (uint32_t k = SLOTS; k-- > 0;) { /* backwards: puts come in any order */
            const struct third *t = slots[k];
            float own[3], other[3];
            ck_assert_int_eq(next->base(next->arg, k, first, n, own, e), 0);
            ck_assert_int_eq(next->base(next->arg, (k + 1) % SLOTS, first, n, other, e), 0);
            for (size_t i = 0; i < n; i++) {
                own[i] = 0.75f * own[i] + 0.25f * other[i] +
                         (float)ldexp((double)t->sum[first + i] / t->members, s->grid.step);
            }
            ck_assert_int_eq(next->put(next->arg, k, first, n, own, e), 0);
        }
    }
    ck_assert_int_eq(next->put(next->arg, SLOTS, 0, 1, (float[]){0}, e), -FL_R_INTERNAL);
    ck_assert_int_eq(next->put(next->arg, 0, s->elements, 1, (float[]){0}, e), -FL_R_INTERNAL);
    memset(next->state, 0, BYTES_STATE);
    fl_put_u32(next->state, s->rounds + 1);
    return 0;
}
static size_t thirds_state_size(const void *shared)
{
    (void)shared;
    return BYTES_STATE;
}
static void thirds_save(const void *shared, uint8_t *to)
{
    memset(to, 0, BYTES_STATE);
    fl_put_u32(to, ((const struct thirds *)shared)->rounds);
}
static int thirds_load(void *shared, const uint8_t *from, size_t size, struct fl_err *e)
{
    (void)e;
    ck_assert_uint_eq(size, BYTES_STATE);
    ((struct thirds *)shared)->rounds = fl_get_u32(from);
    return 0;
}

static const struct fl_strategy thirds = {.name = "fedavg",
                                          .shared_size = sizeof(struct thirds),
                                          .init = thirds_init,
                                          .fini = thirds_fini,
                                          .slots = thirds_slots,
                                          .slot_new = third_new,
                                          .slot_reset = third_reset,
                                          .slot_free = third_free,
                                          .place = thirds_place,
                                          .fold = thirds_fold,
                                          .finish = thirds_finish,
                                          .state_size = thirds_state_size,
                                          .save = thirds_save,
                                          .load = thirds_load};

/* In place of the table's. */
const struct fl_strategy *fl_strategy_find(const char *name)
{
    return strcmp(name, "fedavg") == 0 ? &thirds : NULL;
}

/* ---- a job ---- */

static const char text[] = "name: three\nstrategy: fedavg\nrounds: 5\nseed: 3\n"
                           "model: {input: [4], classes: 3, layers: [{linear: {out: 3}}]}\n"
                           "train: {lr: 0.1}\nround: {members: 70}\ngrid: {bits: 16, step: -8}\n";
enum { VALUES = 15 };

static struct fl_err e;
static const uint8_t incarnation[FL_INCARNATION_SIZE] = {5};

struct job {
    char dir[64];
    struct fl_store *store;
    struct fl_digest checkpoint, model;
    uint64_t model_size;
    float twin[SLOTS][VALUES];
};

static int64_t value_of(uint64_t agent, uint64_t round, int i)
{
    return (int64_t)((agent * 31 + round * 7 + (uint64_t)i * 13) % 301) - 150;
}

static void job_begin(struct job *j)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    uint8_t coordinator[16];
    struct fl_store_quota quota = {.keep_models = 4};
    struct fl_checkpoint *c;
    char path[FL_STORE_PATH_MAX];
    size_t head;

    snprintf(j->dir, sizeof j->dir, "/tmp/cohort-slots-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(j->dir));
    ck_assert_msg(fl_store_open(j->dir, &quota, &j->store, coordinator, &e) == 0, "%s", e.msg);
    ck_assert_msg(fl_plan_parse(plan, "plan", text, sizeof text - 1, &e) == 0, "%s", e.msg);
    ck_assert_uint_eq(plan->layout.shared.elements, VALUES);
    ck_assert_msg(co_initial_checkpoint(j->store, plan, incarnation, &j->checkpoint, &j->model,
                                        &j->model_size, &e) == 0,
                  "%s", e.msg);
    fl_store_checkpoint_path(j->store, incarnation, 0, &j->checkpoint, path);
    ck_assert_int_eq(fl_checkpoint_open(path, 0, &c, &e), 0);
    ck_assert_uint_eq(c->slots, SLOTS);
    ck_assert_uint_eq(c->placed_count, 0);
    ck_assert(fl_digest_equal(&c->model[0], &j->model));
    ck_assert(fl_digest_equal(&c->model[2], &j->model)); /* all begin alike */
    ck_assert_int_eq(fl_checkpoint_head(c, &plan->layout.shared, &head, &e), 0);
    for (uint32_t k = 0; k < SLOTS; k++) {
        ck_assert_int_eq(fl_checkpoint_values(c, head, k, 0, VALUES, j->twin[k], &e), 0);
    }
    fl_checkpoint_close(c);
    fl_free(plan);
}

/* A committed update, as far as folding knows. */
static void put_update(const struct job *j, uint64_t agent, uint64_t round, struct fold_op *f)
{
    const struct fl_grid g = {16, -8};
    uint8_t bytes[2 * VALUES];
    int64_t q[VALUES];
    char folder[FL_STORE_PATH_MAX];

    for (int i = 0; i < VALUES; i++) {
        q[i] = value_of(agent, round, i);
    }
    fl_grid_pack(&g, q, VALUES, bytes);
    f->u = (struct fl_store_update){
        .job = 1, .round = round, .agent = agent, .weight = 1, .size = sizeof bytes};
    fl_digest_of(bytes, sizeof bytes, &f->u.digest);
    fl_store_upload_path(j->store, incarnation, &f->u, f->path);
    snprintf(folder, sizeof folder, "%s", f->path);
    *strrchr(folder, '/') = 0;
    ck_assert_int_eq(fl_file_make_dirs(folder, &e), 0);
    ck_assert_int_eq(fl_file_replace(f->path, bytes, sizeof bytes, 0600, &e), 0);
}

/* One round; the digest of its checkpoint. `step` 1 or -1: the order in which updates come. */
static struct fl_digest one_round(struct job *j, uint64_t round, int step)
{
    struct co_sums_of of = {.name = "plan",
                            .text = text,
                            .size = sizeof text - 1,
                            .round = round,
                            .checkpoint = j->checkpoint};
    struct co_sums *sums = NULL;
    struct finish_op f = {.exchange = 0};
    struct fl_digest ret;
    uint32_t slot;

    memcpy(of.incarnation, incarnation, sizeof of.incarnation);
    ck_assert_msg(co_sums_new(j->store, &of, &sums, &e) == 0, "%s", e.msg);
    ck_assert_int_eq(co_sums_place(sums, 8, &slot, &e), 0);
    ck_assert_uint_eq(slot, 2);
    for (int half = 0; half < 2; half++) { /* the first time half of it is folded and spoilt */
        for (int i = 0; i < (half ? AGENTS : AGENTS / 2); i++) {
            uint64_t agent = (uint64_t)(step > 0 ? i + 1 : AGENTS - i);
            struct fold_op fold = {.sums = sums};
            put_update(j, agent, round, &fold);
            fold_run(&fold.op);
            ck_assert_msg(fold.op.status == 0, "%s", fold.op.err.msg);
        }
        if (!half) {
            co_sums_reset(sums, 0);
        }
    }
    f.made.models.fd = -1;
    ck_assert_msg(finish(sums, 0, NULL, &f.target, &f.made, &e) == 0, "%s", e.msg);
    ck_assert_ptr_null(f.made.models.memory); /* several: in the scratch file */
    struct fl_store_bytes from = {SLOTS * f.made.models.model_size + BYTES_STATE + f.made.end_size,
                                  made_read, &f.made};
    ck_assert_msg(fl_store_checkpoint_copy(j->store, incarnation, round, &from, &ret, &e) == 0,
                  "%s", e.msg);
    made_fini(&f.made);
    co_sums_free(sums);
    return ret;
}

static void twin_round(struct job *j, uint64_t round)
{
    float next[SLOTS][VALUES];

    for (uint32_t k = 0; k < SLOTS; k++) {
        for (int i = 0; i < VALUES; i++) {
            int64_t sum = 0;
            uint32_t members = 0;
            for (uint64_t agent = 1; agent <= AGENTS; agent++) {
                sum += agent % SLOTS == k ? value_of(agent, round, i) : 0;
                members += agent % SLOTS == k;
            }
            next[k][i] = 0.75f * j->twin[k][i] + 0.25f * j->twin[(k + 1) % SLOTS][i] +
                         (float)ldexp((double)sum / members, -8);
        }
    }
    memcpy(j->twin, next, sizeof next);
}

START_TEST(test_three_models_round_after_round)
{
    struct job j;
    char path[FL_STORE_PATH_MAX], command[96];
    struct fl_checkpoint *c;
    struct fl_digest backwards;
    uint8_t *state;
    float x[VALUES];

    job_begin(&j);
    for (uint64_t round = 1; round <= 3; round++) {
        backwards = one_round(&j, round, -1);
        struct fl_digest d = one_round(&j, round, 1); /* after a crash: the same bytes */
        ck_assert(fl_digest_equal(&d, &backwards));
        j.checkpoint = d;
        twin_round(&j, round);
        fl_store_checkpoint_path(j.store, incarnation, round, &d, path);
        ck_assert_msg(fl_checkpoint_open(path, round, &c, &e) == 0, "%s", e.msg);
        ck_assert_uint_eq(c->slots, SLOTS);
        ck_assert_uint_eq(c->placed_count, AGENTS);
        ck_assert_uint_eq(fl_checkpoint_slot(c, 5), 2);
        ck_assert_uint_eq(fl_checkpoint_slot(c, 70), 1);
        ck_assert_int_eq(fl_checkpoint_state(c, &state, &e), 0);
        ck_assert_uint_eq(fl_get_u32(state), round);
        fl_free(state);
        for (uint32_t k = 0; k < SLOTS; k++) {
            size_t head = (size_t)c->model_size - 4 * VALUES;
            ck_assert_int_eq(fl_checkpoint_values(c, head, k, 0, VALUES, x, &e), 0);
            ck_assert_mem_eq(x, j.twin[k], sizeof x);
            struct fl_object *model = fl_checkpoint_model(c, k);
            uint8_t bytes[4096];
            struct fl_digest found;
            ck_assert_int_eq(fl_object_read(model, 0, bytes, (size_t)fl_object_size(model), &e), 0);
            fl_digest_of(bytes, (size_t)fl_object_size(model), &found);
            ck_assert(fl_digest_equal(&found, fl_object_digest(model)));
            fl_object_unref(model);
        }
        ck_assert(!fl_digest_equal(&c->model[0], &c->model[1]));
        fl_checkpoint_close(c);
    }
    fl_store_close(j.store);
    snprintf(command, sizeof command, "rm -rf %s", j.dir);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

TESTS_MAIN("slots", test_three_models_round_after_round)
