/* Built without XGBoost (-Dboosting=disabled). */
#include "client/boost.h"

int fl_boost_importances(const float *x, const float *y, uint32_t rows, uint32_t columns,
                         uint32_t classes, const atomic_bool *cancel, double *ret, struct fl_err *e)
{
    (void)x, (void)y, (void)rows, (void)columns, (void)classes, (void)cancel, (void)ret;
    return fl_fail(e, FL_R_PLAN_STRATEGY,
                   "variant published of pacfl needs boosted trees, and this agent was built "
                   "without XGBoost");
}
