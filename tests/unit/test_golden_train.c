/* Our training against PyTorch's: gradients, steps and the end of each strategy and generator. The
 * files are made by tests/experiments/pytorch_reference.py --golden. */
#include "tests/lib/check_main.h"
#include "tests/lib/replay.h"

#include <glob.h>

START_TEST(test_every_file_is_repeated_to_rounding)
{
    glob_t found;

    ck_assert_int_eq(glob(TEST_SOURCE_ROOT "/tests/golden/train_*.safetensors", 0, NULL, &found),
                     0);
    ck_assert_uint_eq(found.gl_pathc, 11);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct replay_errors far;
        struct fl_err e = {0};
        ck_assert_msg(replay_file(found.gl_pathv[i], &far, &e) == 0, "%s", e.msg);
        ck_assert_msg(replay_agrees(&far, false),
                      "%s: first gradient %g, gradient %g, theta %g, end %g, fl_train %g",
                      found.gl_pathv[i], far.first_gradient, far.gradient, far.theta, far.end,
                      far.whole);
        ck_assert(!isnan(far.whole));
    }
    globfree(&found);
}
END_TEST

TESTS_MAIN("golden_train", test_every_file_is_repeated_to_rounding)
