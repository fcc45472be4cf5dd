/*
 * Partitions. Real sites use `all`: their files are their data. The others deal one public data set
 * to the sites of a simulation.
 *
 * dirichlet     per class, shares of the sites are drawn from Dirichlet(alpha) (Hsu, Qi, Brown
 *               2019); training and test files are cut by the same shares.
 * pathological  a fifth of a site's examples come evenly from all classes, the rest evenly from
 *               three dominant ones: site i is in group i mod (classes / 2), and group g has 2g,
 *               2g + 1, 2g + 2 (HyperFL, arXiv 2412.07187).
 *   published     rows are taken in file order by one pointer a class, which returns to the start
 *                 when a request does not fit; so sites can overlap. What does not divide evenly
 *                 goes to the last class.
 *   disjoint      training and test files are pooled, each class is shuffled and dealt once: no row
 *                 is at two sites or in two parts. What does not divide evenly goes round by site.
 *                 With `dealt` sites of several sizes share a deal: each is dealt so many training
 *                 rows and takes the first of them, class by class.
 */
#include "client/data/partition.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DOMINANT = 3, SHARED_PART = 5 /* one in five comes from all classes */ };

/* Rows of a pool, class by class. */
struct by_class {
    uint32_t *start; /* classes + 1 */
    uint32_t *rows;
};

struct list {
    uint32_t *at;
    uint32_t count;
};

static int no_memory(struct fl_err *e)
{
    return fl_fail(e, FL_R_NOMEM, "partition: out of memory");
}

static void rng_for(const struct fl_data_source *s, const char *label, uint64_t number,
                    struct fl_rng *ret)
{
    struct fl_seed root, seed;

    fl_seed_from_u64(s->seed, &root);
    fl_seed_derive(&root, label, number, &seed);
    fl_rng_init(ret, &seed, 0);
}

static uint32_t class_size(const struct by_class *b, uint32_t c)
{
    return b->start[c + 1] - b->start[c];
}

static void by_class_fini(struct by_class *b)
{
    fl_free(b->start);
    fl_free(b->rows);
}

/* `second` may be NULL; its rows are numbered on from the first's. */
static int by_class_make(uint32_t classes, const struct fl_table *first,
                         const struct fl_table *second, struct by_class *ret, struct fl_err *e)
{
    const struct fl_table *tables[2] = {first, second};
    uint32_t total = first->count + (second ? second->count : 0);
    struct by_class b = {fl_try(classes + 1u, sizeof *b.start), fl_try(total, sizeof *b.rows)};
    uint32_t *next = fl_try(classes, sizeof *next);

    if (!b.start || !b.rows || !next) {
        by_class_fini(&b);
        fl_free(next);
        return no_memory(e);
    }
    for (int k = 0; k < 2 && tables[k]; k++) {
        for (uint32_t i = 0; i < tables[k]->count; i++) {
            b.start[tables[k]->y[i] + 1]++;
        }
    }
    for (uint32_t c = 0; c < classes; c++) {
        b.start[c + 1] += b.start[c];
        next[c] = b.start[c];
    }
    for (uint32_t k = 0, row = 0; k < 2 && tables[k]; k++) {
        for (uint32_t i = 0; i < tables[k]->count; i++, row++) {
            b.rows[next[tables[k]->y[i]]++] = row;
        }
    }
    fl_free(next);
    *ret = b;
    return 0;
}

static int list_make(uint32_t room, struct list *ret, struct fl_err *e)
{
    struct list l = {fl_try(room, sizeof *l.at), 0};

    if (!l.at) {
        return no_memory(e);
    }
    *ret = l;
    return 0;
}

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* ---- from what a site may have to what it takes ---- */

/* A random `wanted` (0 = all) of the candidates, in file order. */
static void take_some(struct list *l, uint32_t wanted, struct fl_rng *r)
{
    if (wanted && wanted < l->count) {
        fl_rng_shuffle(r, l->at, l->count);
        l->count = wanted;
    }
    qsort(l->at, l->count, sizeof *l->at, compare_rows);
}

/* Without test files the test part is cut from the site's training rows first, leaving one. */
static int cut_test(const struct fl_data_source *s, struct list *train, struct list *test,
                    struct fl_rng *r, struct fl_err *e)
{
    uint32_t n = train->count ? train->count - 1 : 0;

    fl_free(test->at);
    test->at = NULL;
    n = s->test < n ? s->test : n;
    int code = list_make(n, test, e);
    if (code || n == 0) {
        return code;
    }
    fl_rng_shuffle(r, train->at, train->count);
    train->count -= n;
    memcpy(test->at, train->at + train->count, n * sizeof *test->at);
    test->count = n;
    qsort(test->at, n, sizeof *test->at, compare_rows);
    return 0;
}

static int take(const struct fl_data_source *s, struct list *train, struct list *test,
                bool has_test_files, struct fl_err *e)
{
    struct fl_rng r;
    int code = 0;

    rng_for(s, "data.take", s->client, &r);
    if (has_test_files) {
        take_some(test, s->test, &r);
    } else {
        code = cut_test(s, train, test, &r, e);
    }
    take_some(train, s->train, &r);
    if (code == 0 && train->count == 0) {
        code = fl_fail(e, FL_R_DATA_EMPTY, "%s: no training examples for client %u", s->train_x,
                       s->client);
    }
    if (code == 0 && s->test && test->count == 0) {
        code = fl_fail(e, FL_R_DATA_EMPTY, "%s: no test examples for client %u",
                       has_test_files ? s->test_x : s->train_x, s->client);
    }
    return code;
}

/* ---- all, column, file ---- */

/* A hash as a number in [0, 1). */
static double unit(uint64_t hash)
{
    return (double)(hash >> 11) * 0x1p-53;
}

/* Rows of this client (all when the table has no client numbers), numbered from `first`. */
static int own_rows(const struct fl_data_source *s, const struct fl_table *t, uint32_t first,
                    struct list *ret, struct fl_err *e)
{
    int code = list_make(t->count, ret, e);

    for (uint32_t i = 0; code == 0 && i < t->count; i++) {
        if (!t->client || t->client[i] == s->client) {
            ret->at[ret->count++] = first + i;
        }
    }
    return code;
}

/* The same by the rows' hashes, each row for itself: of the unit interval the test part has the
 * beginning, training what follows, and validation the beginning of that. No part depends on how
 * many rows there are. */
static int hashed_rows(const struct fl_data_source *s, const struct fl_table *train,
                       const struct fl_table *test, struct list *a, struct list *b, struct list *c,
                       struct fl_err *e)
{
    double cut = test->count ? 0 : s->test_part;
    double size = s->train_part > 0 ? s->train_part : 1 - cut;
    uint32_t kept = 0;
    int code = own_rows(s, train, 0, a, e);

    code = code          ? code
           : test->count ? own_rows(s, test, train->count, b, e)
                         : list_make(a->count, b, e);
    code = code ? code : list_make(a->count, c, e);
    if (code) {
        return code;
    }
    for (uint32_t i = 0, n = a->count; i < n; i++) {
        uint32_t row = a->at[i];
        double at = unit(train->role[row]) - cut;
        if (at < 0) {
            b->at[b->count++] = row;
        } else if (at < size * s->validation) {
            c->at[c->count++] = row;
        } else if (at < size) {
            a->at[kept++] = row;
        }
    }
    a->count = kept;
    kept = 0;
    for (uint32_t i = 0; test->count && s->test_part > 0 && i < b->count; i++) {
        if (unit(test->role[b->at[i] - train->count]) < s->test_part) {
            b->at[kept++] = b->at[i];
        }
    }
    b->count = test->count && s->test_part > 0 ? kept : b->count;
    return a->count ? 0
                    : fl_fail(e, FL_R_DATA_EMPTY, "%s: no training examples for client %u",
                              s->train_x, s->client);
}

/* ---- dirichlet ---- */

/* log of a Gamma(alpha, 1) variate (Marsaglia, Tsang 2000), so that a tiny alpha does not become
 * 0 / 0. */
static double log_gamma_draw(double alpha, struct fl_rng *r)
{
    double boost = 0;

    if (alpha < 1) {
        boost = log1p(-fl_rng_unit(r)) / alpha;
        alpha += 1;
    }
    double d = alpha - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = fl_rng_normal(r), v = 1 + c * x;
        if (v <= 0) {
            continue;
        }
        v = v * v * v;
        double u = 1 - fl_rng_unit(r);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v)) {
            return log(d * v) + boost;
        }
    }
}

/* Where the share of this client begins and ends, of 1. */
static void dirichlet_share(const struct fl_data_source *s, uint32_t c, double *draws,
                            double *ret_begin, double *ret_end)
{
    double most = -INFINITY, sum = 0, before = 0;
    struct fl_rng r;

    rng_for(s, "data.dirichlet", c, &r);
    for (uint32_t i = 0; i < s->of; i++) {
        draws[i] = log_gamma_draw(s->alpha, &r);
        most = draws[i] > most ? draws[i] : most;
    }
    for (uint32_t i = 0; i < s->of; i++) {
        draws[i] = exp(draws[i] - most);
        before += i < s->client ? draws[i] : 0;
        sum += draws[i];
    }
    *ret_begin = before / sum;
    *ret_end = s->client + 1 == s->of ? 1 : (before + draws[s->client]) / sum;
}

static int dirichlet_rows(const struct fl_data_source *s, uint32_t classes,
                          const struct fl_table *t, const char *label, uint32_t first,
                          struct list *ret, struct fl_err *e)
{
    struct by_class b = {0};
    double *draws = fl_try(s->of, sizeof *draws);

    int code = draws ? list_make(t->count, ret, e) : no_memory(e);
    if (code == 0) {
        code = by_class_make(classes, t, NULL, &b, e);
    }
    for (uint32_t c = 0; code == 0 && c < classes; c++) {
        double begin, end;
        struct fl_rng r;
        uint32_t n = class_size(&b, c), *rows = b.rows + b.start[c];
        dirichlet_share(s, c, draws, &begin, &end);
        rng_for(s, label, c, &r);
        fl_rng_shuffle(&r, rows, n);
        for (uint32_t i = (uint32_t)(begin * n); i < (uint32_t)(end * n); i++) {
            ret->at[ret->count++] = first + rows[i];
        }
    }
    by_class_fini(&b);
    fl_free(draws);
    return code;
}

/* ---- pathological ---- */

static uint32_t dominant_class(uint32_t classes, uint32_t client, uint32_t j)
{
    return (client % (classes / 2) * 2 + j) % classes;
}

static int runs_short(uint32_t c, uint64_t wanted, uint32_t there, const char *file,
                      struct fl_err *e)
{
    return fl_fail(e, FL_R_DATA_EMPTY, "%s: class %u: %llu examples are wanted, there are %u", file,
                   c, (unsigned long long)wanted, there);
}

/* One request of the published rule: n rows of class c; kept when `keep` is not NULL. */
static int published_take(const struct by_class *b, uint32_t *used, uint32_t c, uint32_t n,
                          uint32_t first, struct list *keep, const char *file, struct fl_err *e)
{
    uint32_t size = class_size(b, c);

    if (n > size) {
        return runs_short(c, n, size, file, e);
    }
    if (n > size - used[c]) {
        used[c] = 0;
    }
    for (uint32_t i = 0; keep && i < n; i++) {
        keep->at[keep->count++] = first + b->rows[b->start[c] + used[c] + i];
    }
    used[c] += n;
    return 0;
}

static int published_rows(const struct fl_data_source *s, uint32_t classes,
                          const struct fl_table *t, uint32_t first, uint32_t n, const char *file,
                          struct list *ret, struct fl_err *e)
{
    struct by_class b = {0};
    uint32_t *used = fl_try(classes, sizeof *used);
    uint32_t even = n / SHARED_PART, rest = n - even;

    int code = used ? list_make(n, ret, e) : no_memory(e);
    if (code == 0) {
        code = by_class_make(classes, t, NULL, &b, e);
    }
    for (uint32_t i = 0; i <= s->client; i++) {
        struct list *keep = i == s->client ? ret : NULL;
        for (uint32_t c = 0; code == 0 && c < classes; c++) {
            uint32_t each = even / classes;
            each = c + 1 == classes ? even - c * each : each;
            code = published_take(&b, used, c, each, first, keep, file, e);
        }
        for (uint32_t j = 0; code == 0 && j < DOMINANT; j++) {
            uint32_t each = rest / DOMINANT;
            each = j + 1 == DOMINANT ? rest - j * each : each;
            code =
                published_take(&b, used, dominant_class(classes, i, j), each, first, keep, file, e);
        }
    }
    by_class_fini(&b);
    fl_free(used);
    return code;
}

/* Part number `index` of n dealt to `parts`, the remainder beginning elsewhere at every turn. */
static uint32_t spread(uint32_t n, uint32_t parts, uint32_t index, uint32_t turn)
{
    return n / parts + ((index + turn % parts) % parts < n % parts);
}

/* How many of class c a site takes for a part of n. */
static uint32_t demand(uint32_t classes, uint32_t client, uint32_t n, uint32_t c)
{
    uint32_t even = n / SHARED_PART, count = spread(even, classes, c, client);

    for (uint32_t j = 0; j < DOMINANT; j++) {
        if (dominant_class(classes, client, j) == c) {
            count += spread(n - even, DOMINANT, j, client);
        }
    }
    return count;
}

static int disjoint_rows(const struct fl_data_source *s, uint32_t classes,
                         const struct fl_table *train, const struct fl_table *test,
                         struct list *ret_train, struct list *ret_test, struct fl_err *e)
{
    struct by_class b = {0};
    uint32_t dealt = s->dealt ? s->dealt : s->train;

    int code = by_class_make(classes, train, test->count ? test : NULL, &b, e);
    if (code == 0) {
        code = list_make(s->train, ret_train, e);
    }
    if (code == 0) {
        code = list_make(s->test, ret_test, e);
    }
    for (uint32_t c = 0; code == 0 && c < classes; c++) {
        uint64_t before = 0, all = 0;
        for (uint32_t i = 0; i < s->of; i++) {
            before = i == s->client ? all : before;
            all += demand(classes, i, dealt, c);
            all += demand(classes, i, s->test, c);
        }
        if (all > class_size(&b, c)) {
            code = runs_short(c, all, class_size(&b, c), s->train_x, e);
            break;
        }
        struct fl_rng r;
        uint32_t *rows = b.rows + b.start[c];
        rng_for(s, "data.disjoint", c, &r);
        fl_rng_shuffle(&r, rows, class_size(&b, c));
        rows += before;
        uint32_t has = demand(classes, s->client, dealt, c);
        uint32_t taken = demand(classes, s->client, s->train, c);
        for (uint32_t i = 0; i < taken && i < has; i++) {
            ret_train->at[ret_train->count++] = rows[i];
        }
        rows += has;
        for (uint32_t i = demand(classes, s->client, s->test, c); i > 0; i--) {
            ret_test->at[ret_test->count++] = *rows++;
        }
    }
    by_class_fini(&b);
    return code;
}

static int pathological(const struct fl_data_source *s, uint32_t classes,
                        const struct fl_table *train, const struct fl_table *test,
                        struct list *ret_train, struct list *ret_test, struct fl_err *e)
{
    if (classes < DOMINANT || s->train == 0) {
        return fl_fail(e, FL_R_CONF_RANGE,
                       "a pathological partition needs at least %d classes and a size of the "
                       "training part",
                       DOMINANT);
    }
    if (s->dealt && (!s->disjoint || s->dealt < s->train)) {
        return fl_fail(e, FL_R_CONF_RANGE,
                       "dealt (%u) is for a disjoint deal, and at least train (%u)", s->dealt,
                       s->train);
    }
    if (s->disjoint) {
        return disjoint_rows(s, classes, train, test, ret_train, ret_test, e);
    }
    if (s->test && test->count == 0) {
        return fl_fail(e, FL_R_CONF_RANGE,
                       "the published partition takes its test part from test "
                       "files, and there are none");
    }
    int code = published_rows(s, classes, train, 0, s->train, s->train_x, ret_train, e);
    if (code == 0 && s->test) {
        code = published_rows(s, classes, test, train->count, s->test, s->test_x, ret_test, e);
    }
    return code;
}

/* ---- all of them ---- */

static int choose(const struct fl_data_source *s, uint32_t classes, const struct fl_table *train,
                  const struct fl_table *test, struct list *a, struct list *b, struct fl_err *e)
{
    uint32_t n = train->count;
    int code;

    switch (s->partition) {
    case FL_PARTITION_PATHOLOGICAL:
        return pathological(s, classes, train, test, a, b, e);
    case FL_PARTITION_DIRICHLET:
        if (!isfinite(s->alpha) || s->alpha <= 0) {
            return fl_fail(e, FL_R_CONF_RANGE, "dirichlet needs an alpha above 0");
        }
        code = dirichlet_rows(s, classes, train, "data.rows", 0, a, e);
        if (code == 0) {
            code = dirichlet_rows(s, classes, test, "data.rows.test", n, b, e);
        }
        break;
    default:
        code = own_rows(s, train, 0, a, e);
        if (code == 0) {
            code = own_rows(s, test, n, b, e);
        }
    }
    return code ? code : take(s, a, b, test->count > 0, e);
}

/* Validation examples leave the training part, drawn with the site's seed; what stays keeps its
 * order. */
static int hold_out(const struct fl_data_source *s, struct list *train, struct list *ret,
                    struct fl_err *e)
{
    struct fl_rng r;
    double most = s->validation < 1 ? s->validation * train->count : s->validation;
    uint32_t kept = 0;

    if (most < 1) {
        return 0;
    }
    if (most >= train->count) {
        return fl_fail(e, FL_R_DATA_EMPTY,
                       "%s: %.0f validation examples of %u training examples leave none to train "
                       "on",
                       s->train_x, most, train->count);
    }
    uint32_t wanted = (uint32_t)most;
    int code = list_make(wanted, ret, e);
    if (code) {
        return code;
    }
    rng_for(s, "data.validation", s->client, &r);
    for (uint32_t i = 0, n = train->count; i < n; i++) { /* each set of rows equally likely */
        if (fl_rng_below(&r, n - i) < wanted - ret->count) {
            ret->at[ret->count++] = train->at[i];
        } else {
            train->at[kept++] = train->at[i];
        }
    }
    train->count = kept;
    return 0;
}

int fl_partition(const struct fl_data_source *source, uint32_t classes,
                 const struct fl_table *train, const struct fl_table *test, struct fl_split *ret,
                 struct fl_err *e)
{
    bool dealt = source->partition == FL_PARTITION_DIRICHLET ||
                 source->partition == FL_PARTITION_PATHOLOGICAL;
    struct list a = {0}, b = {0}, c = {0};

    if (dealt && source->client >= source->of) {
        return fl_fail(e, FL_R_CONF_RANGE, "client %u of %u: they are counted from 0",
                       source->client, source->of);
    }
    int code = train->role ? hashed_rows(source, train, test, &a, &b, &c, e)
                           : choose(source, classes, train, test, &a, &b, e);
    code = code || train->role ? code : hold_out(source, &a, &c, e);
    if (code) {
        fl_free(a.at);
        fl_free(b.at);
        fl_free(c.at);
        return code;
    }
    *ret = (struct fl_split){a.at, b.at, c.at, a.count, b.count, c.count};
    return 0;
}

void fl_split_fini(struct fl_split *s)
{
    if (s) {
        fl_free(s->train);
        fl_free(s->test);
        fl_free(s->validation);
        memset(s, 0, sizeof *s);
    }
}
