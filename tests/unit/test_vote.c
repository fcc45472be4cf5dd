#include "common/base/mem.h"
#include "common/math/vote.h"
#include "tests/lib/check_main.h"

#include <string.h>

/* Three classes; models with these probabilities of one example. */
static int32_t soft(const float *p, size_t models, float confidence, float agreement)
{
    int32_t label;

    fl_vote_soft(p, models, 1, 3, confidence, agreement, &label);
    return label;
}

START_TEST(test_agreed_votes_are_labels_and_others_none)
{
    static const float sure[] = {.1f, .9f, 0, .05f, .9f, .05f, 0, .95f, .05f};
    static const float unsure[] = {.3f, .5f, .2f, .3f, .5f, .2f, .3f, .5f, .2f};
    static const float divided[] = {.9f, .1f, 0, 0, .9f, .1f, .1f, 0, .9f};

    ck_assert_int_eq(soft(sure, 3, 0.8f, 0.667f), 1);
    ck_assert_int_eq(soft(unsure, 3, 0.8f, 0.667f), FL_VOTE_NONE);
    ck_assert_int_eq(soft(unsure, 3, 0.45f, 0.667f), 1);
    ck_assert_int_eq(soft(divided, 3, 0, 0.667f), FL_VOTE_NONE);
    ck_assert_int_eq(soft(divided, 0, 0, 0), FL_VOTE_NONE);
}
END_TEST

START_TEST(test_ties_go_to_the_lowest_class_in_any_order)
{
    static const float tie[] = {.1f, .45f, .45f, .1f, .45f, .45f};
    static const float half[] = {0, .2f, .8f, 0, .8f, .2f};
    static const float turned[] = {0, .8f, .2f, 0, .2f, .8f};
    int32_t label;

    ck_assert_int_eq(soft(tie, 2, 0.4f, 0.5f), 1);
    ck_assert_int_eq(soft(half, 2, 0, 0), 1);
    ck_assert_int_eq(soft(turned, 2, 0, 0), 1);
    fl_vote_hard(half, 2, 1, 3, &label);
    ck_assert_int_eq(label, 1);
    fl_vote_hard(turned, 2, 1, 3, &label);
    ck_assert_int_eq(label, 1);
}
END_TEST

/* Two of five say with all certainty what is wrong: a mean of probabilities follows them. */
START_TEST(test_fewer_than_half_cannot_choose_a_label)
{
    enum { MODELS = 5, EXAMPLES = 40 };
    float p[MODELS * EXAMPLES * 3];
    int32_t label[EXAMPLES], mean_says = 0;

    for (size_t m = 0; m < MODELS; m++) {
        for (size_t n = 0; n < EXAMPLES; n++) {
            float *at = p + (m * EXAMPLES + n) * 3;
            size_t right = n % 3, wrong = (n + 1) % 3;
            at[0] = at[1] = at[2] = 0;
            if (m < 2) {
                at[wrong] = 1;
            } else {
                at[right] = 0.5f;
                at[wrong] = 0.3f;
                at[(n + 2) % 3] = 0.2f;
            }
            mean_says += m == MODELS - 1 && 2 + 3 * 0.3 > 3 * 0.5;
        }
    }
    ck_assert_int_eq(mean_says, EXAMPLES); /* the mean would be wrong everywhere */
    fl_vote_soft(p, MODELS, EXAMPLES, 3, 0.4f, 0.6f, label);
    for (size_t n = 0; n < EXAMPLES; n++) {
        ck_assert_int_eq(label[n], (int32_t)(n % 3));
    }
    fl_vote_soft(p, MODELS, EXAMPLES, 3, 0.4f, 0.8f, label); /* four of five are needed */
    for (size_t n = 0; n < EXAMPLES; n++) {
        ck_assert_int_eq(label[n], FL_VOTE_NONE);
    }
}
END_TEST

START_TEST(test_hard_votes_are_a_majority)
{
    static const float p[] = {.4f, .3f, .3f, .1f, .2f, .7f, 0, .1f, .9f};
    int32_t label;

    fl_vote_hard(p, 3, 1, 3, &label);
    ck_assert_int_eq(label, 2);
}
END_TEST

START_TEST(test_sign_test_by_hand)
{
    ck_assert_double_eq_tol(fl_vote_sign_test(0, 0), 1, 1e-12);
    ck_assert_double_eq_tol(fl_vote_sign_test(0, 5), 1.0 / 32, 1e-12);
    ck_assert_double_eq_tol(fl_vote_sign_test(1, 5), 7.0 / 64, 1e-12); /* (6 + 1) / 2^6 */
    ck_assert_double_eq_tol(fl_vote_sign_test(5, 0), 1, 1e-12);
    ck_assert_double_eq_tol(fl_vote_sign_test(40, 60), 0.02844397, 1e-7); /* scipy.binomtest */
}
END_TEST

TESTS_MAIN("vote", test_agreed_votes_are_labels_and_others_none,
           test_ties_go_to_the_lowest_class_in_any_order,
           test_fewer_than_half_cannot_choose_a_label, test_hard_votes_are_a_majority,
           test_sign_test_by_hand)
