/*
 * Private tensors of a job: in a file named by their digest, committed by the debit that names
 * them. A digest that is that of the beginning needs no file.
 */
#include "client/task_in.h"

#include "client/site_model.h"

#include "common/base/le.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/param/param.h"

#include <string.h>

/* ---- floats in files: 4 bytes, little-endian ----
 *
 * Frozen tensors are not in them: they are what the job's text says (its seed, or its model.base),
 * in every round, so there is nothing to keep, nor to write again. */

static size_t kept_count(const struct fl_tensors *tensors)
{
    size_t count = 0;

    for (uint32_t i = 0; i < tensors->count; i++) {
        count += fl_param_is_frozen(&tensors->at[i]) ? 0 : tensors->at[i].count;
    }
    return count;
}

static void kept_from_bytes(const struct fl_tensors *tensors, const uint8_t *from, float *to)
{
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        for (size_t k = 0; !fl_param_is_frozen(t) && k < t->count; k++, from += 4) {
            to[t->offset + k] = fl_get_float(from);
        }
    }
}

static void kept_to_bytes(const struct fl_tensors *tensors, const float *from, uint8_t *to)
{
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        for (size_t k = 0; !fl_param_is_frozen(t) && k < t->count; k++, to += 4) {
            fl_put_float(to, from[t->offset + k]);
        }
    }
}

static void kept_digest(const struct fl_tensors *tensors, const float *x, struct fl_digest *ret)
{
    uint8_t bytes[4096];
    size_t n = 0;
    struct fl_hash h;

    fl_hash_init(&h);
    for (uint32_t i = 0; i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        for (size_t k = 0; !fl_param_is_frozen(t) && k < t->count; k++) {
            fl_put_float(bytes + n, x[t->offset + k]);
            n += 4;
            if (n == sizeof bytes) {
                fl_hash_add(&h, bytes, n);
                n = 0;
            }
        }
    }
    fl_hash_add(&h, bytes, n);
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
    if (kept_count(&t->plan->layout.private_) == 0) {
        return 0;
    }
    int r = fl_ledger_private(t->vault->ledger, t->what.key.incarnation, ret, &round, e);
    if (r != 0 && !(r == 1 && fl_digest_is_zero(ret))) {
        return r < 0 ? r : 0;
    }
    r = initial_private(t, &x, e);
    if (r == 0) {
        kept_digest(&t->plan->layout.private_, x, ret);
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
    const struct fl_tensors *tensors = &t->plan->layout.private_;
    size_t size, count = kept_count(tensors);

    int r = initial_private(t, ret, e);
    if (r || count == 0) {
        return r;
    }
    kept_digest(tensors, *ret, &found);
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
            kept_from_bytes(tensors, bytes, *ret);
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
    size_t count = kept_count(&t->plan->layout.private_);

    memset(ret, 0, sizeof *ret);
    if (count == 0) {
        return 0;
    }
    uint8_t *bytes = fl_try(count, 4);
    if (!bytes) {
        return fl_fail(e, FL_R_NOMEM, "out of memory for the private tensors");
    }
    kept_to_bytes(&t->plan->layout.private_, t->private_out, bytes);
    fl_digest_of(bytes, 4 * count, ret);
    fl_vault_private_path(t->vault, t->what.key.incarnation, ret, path);
    int r = fl_file_replace(path, bytes, 4 * count, 0600, e);
    explicit_bzero(bytes, 4 * count);
    fl_free(bytes);
    return r;
}
