/* The steps of the server optimizers against values made by Python from the formulas of algorithm 2
 * of Reddi et al. 2021 (and section 4.3 of Hsu et al. 2019), in doubles. */
#include "common/base/mem.h"
#include "server/strategy/serveropt.h"
#include "tests/lib/check_main.h"

#include <math.h>
#include <string.h>

static const double means[4][3] = {
    {0.5, -0.25, 0.001}, {0.1, 0.75, -0.002}, {-0.3, 0.0, 0.004}, {0.2, -1.5, 0.0005}};

START_TEST(test_four_steps_of_each)
{
    static const struct {
        struct fl_server_opt_conf conf;
        double x[3], m[3], v[3];
    } golden[] = {
        {{FL_SERVER_AVERAGE, 0.1f, 0.9f, 0, 0},
         {1.162049996, -2.032725002, 0.0006119000005},
         {0.3754999739, -1.074750018, 0.003208999933},
         {0}},
        {{FL_SERVER_ADAGRAD, 0.1f, 0, 0, 0.001f},
         {1.100724168, -2.093265411, 0.06248126007},
         {0.2, -1.5, 0.0005},
         {0.390001, 2.875001, 2.225000009e-05}},
        {{FL_SERVER_ADAM, 0.1f, 0.9f, 0.99f, 0.001f},
         {1.296754503, -2.034291556, 0.02938337423},
         {0.03755000634, -0.1074750274, 0.0003209000698},
         {0.003815714539, 0.0286204328, 1.170402931e-06}},
        {{FL_SERVER_YOGI, 0.1f, 0.9f, 0.99f, 0.001f},
         {1.295371022, -2.034503594, 0.02930521479},
         {0.03755000634, -0.1074750274, 0.0003209000698},
         {0.003900996281, 0.02875097258, 1.187499916e-06}},
    };

    for (size_t g = 0; g < FL_COUNT(golden); g++) {
        const struct fl_server_opt opt = fl_server_opt_of(&golden[g].conf);
        float first = fl_server_opt_first(&opt);
        float x[3] = {1, -2, 0}, next[3], m[3] = {0}, v[3] = {first, first, first}, m2[3], v2[3];
        struct fl_moments now = {m, v}, then = {m2, v2};
        for (size_t round = 0; round < FL_COUNT(means); round++) {
            ck_assert_int_eq(
                fl_server_opt_step(&opt, x, means[round], 0, 3, &now, next, &then, NULL), 0);
            memcpy(x, next, sizeof x);
            memcpy(m, m2, sizeof m);
            memcpy(v, v2, sizeof v);
        }
        for (size_t i = 0; i < 3; i++) {
            ck_assert_double_le(fabs((double)x[i] - golden[g].x[i]), 1e-6);
            ck_assert_double_le(fabs((double)m[i] - golden[g].m[i]), 1e-6);
            if (golden[g].conf.optimizer != FL_SERVER_AVERAGE) {
                ck_assert_double_le(fabs((double)v[i] - golden[g].v[i]), 1e-6 * golden[g].v[i]);
            }
        }
    }
}
END_TEST

START_TEST(test_what_is_not_finite_is_refused_by_its_number)
{
    static const struct fl_server_opt_conf conf = {
        .optimizer = FL_SERVER_ADAM, .lr = 0.1f, .momentum = 0.9f, .beta2 = 0.5f, .tau = 1e-3f};
    const struct fl_server_opt opt = fl_server_opt_of(&conf);
    float x[2] = {0}, next[2], m[2] = {0}, v[2] = {1, 1}, m2[2], v2[2];
    struct fl_moments now = {m, v}, then = {m2, v2};
    struct fl_err e = {0};

    ck_assert_uint_eq(fl_server_opt_moments(&opt), 2);
    /* The model would be finite, the second moment would not. */
    const double large[2] = {1, 1e20};
    ck_assert_int_eq(fl_server_opt_step(&opt, x, large, 40, 2, &now, next, &then, &e),
                     -FL_R_NOT_FINITE);
    ck_assert_str_eq(e.msg, "element 41 of the next model is not finite");
    const double none[2] = {NAN, 0};
    ck_assert_int_eq(fl_server_opt_step(&opt, x, none, 40, 2, &now, next, &then, &e),
                     -FL_R_NOT_FINITE);
    ck_assert_str_eq(e.msg, "element 40 of the next model is not finite");
}
END_TEST

TESTS_MAIN("serveropt", test_four_steps_of_each, test_what_is_not_finite_is_refused_by_its_number)
