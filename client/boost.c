#include "client/boost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xgboost/c_api.h>

static int failed(struct fl_err *e, const char *what)
{
    return fl_fail(e, FL_R_NOMEM, "XGBoost: %s: %.120s", what, XGBGetLastError());
}

static int configure(BoosterHandle b, uint32_t classes, struct fl_err *e)
{
    char depth[16], rate[16], count[16];
    const char *const settings[][2] = {
        {"objective", classes == 0   ? "reg:squarederror"
                      : classes == 2 ? "binary:logistic"
                                     : "multi:softprob"},
        {"num_class", count},
        {"max_depth", depth},
        {"eta", rate},
        {"tree_method", "exact"},
        {"nthread", "1"},
        {"seed", "42"},
        {"verbosity", "0"},
        {"validate_parameters", "0"},
        {"disable_default_eval_metric", "1"},
    };

    snprintf(depth, sizeof depth, "%d", FL_BOOST_DEPTH);
    snprintf(rate, sizeof rate, "%g", FL_BOOST_RATE);
    snprintf(count, sizeof count, "%u", classes > 2 ? classes : 0);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        if (XGBoosterSetParam(b, settings[i][0], settings[i][1]) != 0) {
            return failed(e, settings[i][0]);
        }
    }
    return 0;
}

static int read_gains(BoosterHandle b, uint32_t columns, double *ret, struct fl_err *e)
{
    bst_ulong features, dims;
    const bst_ulong *shape;
    const char **names;
    const float *scores;
    double sum = 0;

    memset(ret, 0, columns * sizeof *ret);
    if (XGBoosterFeatureScore(b, "{\"importance_type\": \"gain\"}", &features, &names, &dims,
                              &shape, &scores) != 0) {
        return failed(e, "gains");
    }
    for (bst_ulong i = 0; i < features; i++) { /* without names of ours they are f0, f1, ... */
        unsigned long k = names[i][0] == 'f' ? strtoul(names[i] + 1, NULL, 10) : columns;
        if (k >= columns || !isfinite(scores[i]) || scores[i] < 0) {
            return fl_fail(e, FL_R_INTERNAL, "XGBoost: gain %g of %.40s", (double)scores[i],
                           names[i]);
        }
        ret[k] = (double)scores[i];
        sum += ret[k];
    }
    for (uint32_t k = 0; k < columns && sum > 0; k++) {
        ret[k] /= sum;
    }
    return 0;
}

int fl_boost_importances(const float *x, const float *y, uint32_t rows, uint32_t columns,
                         uint32_t classes, const atomic_bool *cancel, double *ret, struct fl_err *e)
{
    DMatrixHandle data = NULL;
    BoosterHandle b = NULL;
    int r = 0;

    if (XGDMatrixCreateFromMat(x, rows, columns, NAN, &data) != 0 ||
        XGDMatrixSetFloatInfo(data, "label", y, rows) != 0 || XGBoosterCreate(&data, 1, &b) != 0) {
        r = failed(e, "a table");
    }
    r = r ? r : configure(b, classes, e);
    for (int tree = 0; r == 0 && tree < FL_BOOST_TREES; tree++) {
        if (atomic_load_explicit(cancel, memory_order_relaxed)) {
            r = fl_fail(e, FL_R_CANCELLED, "stopped while growing trees");
        } else if (XGBoosterUpdateOneIter(b, tree, data) != 0) {
            r = failed(e, "a tree");
        }
    }
    r = r ? r : read_gains(b, columns, ret, e);
    if (b) {
        XGBoosterFree(b);
    }
    if (data) {
        XGDMatrixFree(data);
    }
    return r;
}
