#include "client/data/table.h"

#include "client/data/csv.h"
#include "common/base/mem.h"

#include <string.h>

size_t fl_table_features(const struct fl_table *t)
{
    return (size_t)t->shape[0] * t->shape[1] * t->shape[2];
}

void fl_table_fini(struct fl_table *t)
{
    if (t) {
        fl_free(t->y);
        fl_free(t->target);
        fl_free(t->client);
        fl_free(t->series);
        fl_free(t->line);
        fl_free(t->time);
        fl_free(t->role);
        fl_free(t->records);
        memset(t, 0, sizeof *t);
    }
}

void fl_table_hash_target(const struct fl_table *t, uint32_t row, struct fl_hash *h)
{
    if (t->y) {
        fl_hash_add_u32(h, (uint32_t)t->y[row]);
    } else {
        fl_hash_add(h, t->target + (size_t)row * t->target_width,
                    t->target_width * sizeof *t->target);
    }
}

void fl_rows_begin(struct fl_rows *r)
{
    fl_hash_init(&r->raw);
}

static int changed(const struct fl_csv *c, struct fl_err *e)
{
    return fl_fail(e, FL_R_DATA_CHANGED, "%s: changed while it was read", fl_csv_path(c));
}

int fl_rows_next(struct fl_rows *r, struct fl_csv *c, uint32_t row, struct fl_err *e)
{
    bool end = false;
    int code = fl_csv_next(c, &end, e);

    if (code || end) {
        return code ? code : changed(c, e);
    }
    fl_csv_hash(c, &r->raw);
    if (r->wanted->marks && r->wanted->marks[row]) {
        fl_csv_hash(c, r->wanted->identity);
    }
    if (r->wanted->roles) {
        struct fl_hash h;
        fl_hash_init_keyed(&h, r->wanted->roles->key);
        fl_csv_hash(c, &h);
        r->wanted->roles->at[row] = fl_hash_end_u64(&h);
    }
    return 0;
}

int fl_rows_end(struct fl_rows *r, struct fl_csv *c, struct fl_err *e)
{
    struct fl_digest found;
    bool end = false;
    int code = fl_csv_next(c, &end, e);

    if (code) {
        return code;
    }
    fl_hash_end(&r->raw, &found);
    return end && fl_digest_equal(&found, &r->t->raw) ? 0 : changed(c, e);
}
