/*
 * Private tensors of a job: in a file named by their digest, committed by the debit that names
 * them. A digest that is that of the beginning needs no file.
 */
#include "client/task_in.h"

#include "client/site_model.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <string.h>

/* ---- floats in files: 4 bytes, little-endian ---- */

static void floats_from_bytes(const uint8_t *from, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = fl_get_float(from + 4 * i);
    }
}

static void floats_to_bytes(const float *from, size_t count, uint8_t *to)
{
    for (size_t i = 0; i < count; i++) {
        fl_put_float(to + 4 * i, from[i]);
    }
}

static void digest_of_floats(const float *x, size_t count, struct fl_digest *ret)
{
    uint8_t bytes[4096];
    struct fl_hash h;

    fl_hash_init(&h);
    while (count) {
        size_t n = count < sizeof bytes / 4 ? count : sizeof bytes / 4;
        floats_to_bytes(x, n, bytes);
        fl_hash_add(&h, bytes, 4 * n);
        x += n;
        count -= n;
    }
    fl_hash_end(&h, ret);
}

/* ---- private tensors ----------------------------------------------------------------------------
 */

size_t fl_task_private_count(const struct fl_task *t)
{
    return t->plan->layout.private_.elements;
}

/* As a job begins: of the job's seed where the published start asks for it, else of the agent's. */
static int initial_private(const struct fl_task *t, float **ret, struct fl_err *e)
{
    struct fl_seed job;
    float *x = fl_try_aligned(fl_task_private_count(t) + 1, sizeof *x);

    if (!x) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the private tensors");
    }
    fl_seed_from_u64(t->plan->seed, &job);
    fl_layout_init_private(&t->plan->layout, &job, &t->vault->seed, x);
    int r = fl_site_model(t->vault->agent, t->plan, x, e);
    if (r) {
        fl_free(x);
        return fl_wrap(e, r, "job %s", t->what.job);
    }
    *ret = x;
    return 0;
}

/* [sync] Digest of the private tensors that go into this round. Zero: there are none. */
int fl_task_private_digest(struct fl_task *t, struct fl_digest *ret, struct fl_err *e)
{
    uint64_t round;
    float *x = NULL;

    memset(ret, 0, sizeof *ret);
    if (fl_task_private_count(t) == 0) {
        return 0;
    }
    int r = fl_ledger_private(t->vault->ledger, t->what.key.incarnation, ret, &round, e);
    if (r != 0 && !(r == 1 && fl_digest_is_zero(ret))) {
        return r < 0 ? r : 0;
    }
    r = initial_private(t, &x, e);
    if (r == 0) {
        digest_of_floats(x, fl_task_private_count(t), ret);
        fl_free(x);
    }
    return r;
}

/* The private tensors with the digest found before: from their file, or as the job begins. */
int fl_task_load_private(const struct fl_task *t, const struct fl_digest *digest, float **ret,
                         struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    struct fl_digest found;
    uint8_t *bytes;
    size_t size, count = fl_task_private_count(t);

    int r = initial_private(t, ret, e);
    if (r || count == 0) {
        return r;
    }
    digest_of_floats(*ret, count, &found);
    if (fl_digest_equal(&found, digest)) {
        return 0;
    }
    fl_vault_private_path(t->vault, t->what.key.incarnation, digest, path);
    r = fl_file_read(path, 4 * count, &bytes, &size, e);
    if (r == 0) {
        fl_digest_of(bytes, size, &found);
        if (size != 4 * count || !fl_digest_equal(&found, digest)) {
            r = fl_fail(e, FL_R_STORE_MISMATCH, "%s: its bytes do not match its name", path);
        } else {
            floats_from_bytes(bytes, count, *ret);
        }
        explicit_bzero(bytes, size);
        fl_free(bytes);
    }
    if (r) {
        fl_free(*ret);
        *ret = NULL;
    }
    return r;
}

/* The private tensors after this round, in a file named by their digest (zero: there are none). */
int fl_task_write_private(struct fl_task *t, struct fl_digest *ret, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    size_t count = fl_task_private_count(t);

    memset(ret, 0, sizeof *ret);
    if (count == 0) {
        return 0;
    }
    uint8_t *bytes = fl_try(count, 4);
    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the private tensors");
    }
    floats_to_bytes(t->private_out, count, bytes);
    fl_digest_of(bytes, 4 * count, ret);
    fl_vault_private_path(t->vault, t->what.key.incarnation, ret, path);
    int r = fl_file_replace(path, bytes, 4 * count, 0600, e);
    explicit_bzero(bytes, 4 * count);
    fl_free(bytes);
    return r;
}
