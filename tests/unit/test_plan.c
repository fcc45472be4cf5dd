/* What a plan says, where it is wrong, how its text is changed, and that the documentation tells
 * the same. */
#include "tests/lib/plan_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

START_TEST(test_a_plan_and_its_defaults)
{
    good(0, "", "");
    ck_assert_str_eq(plan.name, "fashion");
    ck_assert_str_eq(plan.strategy, "hyperfl");
    ck_assert(plan.rounds == 30 && plan.seed == 1);
    ck_assert(plan.layout.visibility == FL_VISIBILITY_BODY_GENERATED);
    ck_assert(plan.layout.generator.kind == FL_GENERATOR_AFFINE &&
              plan.layout.generator.embedding == 64 && plan.layout.generator.hidden == 3 &&
              plan.layout.generator.scaled);
    ck_assert_uint_eq(plan.layout.generated, 115776);
    ck_assert_uint_eq(plan.layout.shared.elements, 463299);
    ck_assert_str_eq(plan.layout.spec.layers[7].name, "wide");
    ck_assert_uint_eq(plan.layout.spec.layers[7].line, 15);
    ck_assert(plan.train.batch == 32 && plan.train.epochs == 1 && plan.train.steps == 0);
    ck_assert(plan.train.head.lr == 0.02f && plan.train.head.momentum == 0.5f &&
              plan.train.head_epochs == 1 && plan.train.serve_lr == 0.02f);
    ck_assert(plan.round.members == 20 && plan.round.quorum == 15 &&
              plan.round.deadline_ms == 600000 && plan.round.fill_ms == 10000);
    ck_assert(plan.grid.bits == 16 && plan.grid.step == -14);
    ck_assert(plan.weighting == FL_WEIGHT_EQUAL && plan.max_weight == 1);
    ck_assert(plan.server.lr == 1 && plan.data.channels == 0);
    ck_assert(plan.privacy.unit == FL_UNIT_NONE && fl_plan_resolved(&plan));
    ck_assert_uint_eq(fl_plan_update_size(&plan), 2 * 463299);
    ck_assert(!fl_digest_is_zero(&plan.digest));
}
END_TEST

START_TEST(test_one_word_changes_the_strategy)
{
    const struct {
        const char *line;
        enum fl_visibility visibility;
        size_t shared, private_;
        uint32_t head_epochs;
    } cases[] = {
        {"strategy: fedavg", FL_VISIBILITY_ALL_SHARED, 117066, 0, 0},
        {"strategy: fedrep", FL_VISIBILITY_HEAD_PRIVATE, 115776, 1290, 1},
        {"strategy: fedper", FL_VISIBILITY_HEAD_PRIVATE, 115776, 1290, 0},
        {"strategy: {fedavg: {}}", FL_VISIBILITY_ALL_SHARED, 117066, 0, 0},
        {"strategy: {fedprox: {mu: 0.5}}", FL_VISIBILITY_ALL_SHARED, 117066, 0, 0},
        {"strategy: hyperfl", FL_VISIBILITY_BODY_GENERATED, 463299, 1290 + 64, 1},
        {"strategy: local", FL_VISIBILITY_ALL_PRIVATE, 0, 117066, 0},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        good(2, cases[i].line, "");
        ck_assert(plan.layout.visibility == cases[i].visibility);
        ck_assert_uint_eq(plan.layout.shared.elements, cases[i].shared);
        ck_assert_uint_eq(plan.layout.private_.elements, cases[i].private_);
        ck_assert_uint_eq(plan.train.head_epochs, cases[i].head_epochs);
        ck_assert_uint_eq(fl_plan_update_size(&plan), 2 * cases[i].shared);
    }
    bad(2, "strategy: fedsgd", "", FL_R_PLAN_STRATEGY,
        "job.yaml:2:11: strategy: fedsgd is not a strategy (JOB.md has all); there are apfl, ");
    bad(2, "strategy: [fedavg]", "", FL_R_CONF_TYPE, "job.yaml:2:11: strategy: one word");
    bad(2, "strategy: {fedavg: {}, local: {}}", "", FL_R_CONF_TYPE,
        "job.yaml:2:11: strategy: one word");
    bad(2, "strategy: {fedsgd: {}}", "", FL_R_PLAN_STRATEGY,
        "job.yaml:2:20: strategy.fedsgd: fedsgd is not a strategy");
    bad(2, "strategy: {fedprox: 0.1}", "", FL_R_CONF_TYPE,
        "job.yaml:2:21: strategy.fedprox: a map of settings");
    bad(2, "strategy: {fedprox: {nu: 0.1}}", "", FL_R_CONF_UNKNOWN,
        "job.yaml:2:22: strategy.fedprox.nu: unknown key");
    bad(2, "strategy: {fedprox: {mu: 0}}", "", FL_R_CONF_RANGE,
        "job.yaml:2:26: strategy.fedprox.mu");
    bad(2, "strategy: {fedavg: {mu: 1}}", "", FL_R_CONF_UNKNOWN,
        "job.yaml:2:21: strategy.fedavg.mu");
}
END_TEST

START_TEST(test_settings)
{
    good(2, "strategy: fedprox", "");
    ck_assert_str_eq(plan.strategy, "fedprox");
    ck_assert(plan.setting.mu == 0.01f);
    good(2, "strategy: {fedprox: {mu: 0.5}}", "");
    ck_assert_str_eq(plan.strategy, "fedprox");
    ck_assert(plan.setting.mu == 0.5f);
    good(2, "strategy: fedavg", "");
    ck_assert(plan.setting.mu == 0);
}
END_TEST

/* Whatever settings a strategy has, a trainer program can be told them. */
START_TEST(test_settings_of_every_strategy_by_name)
{
    char line[128];
    struct fl_setting x;
    const char *word;
    uint32_t words = 0, settings = 0;

    for (size_t k = 0; (word = fl_plan_strategy_at(k)) != NULL; k++) {
        char *text;
        snprintf(line, sizeof line, "strategy: %s", word);
        text = text_with(2, line, "");
        ck_assert_int_ne(parse(text), -FL_R_PLAN_STRATEGY);
        if (err.code == 0) { /* some want more of a job than a word */
            uint32_t i = 0;
            for (; fl_plan_setting(&plan, i, &x); i++) {
                ck_assert(strlen(x.name) > 0 && isfinite(x.number));
            }
            settings += i;
            words++;
        }
        fl_free(text);
    }
    ck_assert_uint_ge(words, 15);
    ck_assert_uint_ge(settings, 25);
    good(2, "strategy: {pfedhn: {variant: published, hidden: 7}}", "");
    ck_assert(fl_plan_setting(&plan, 1, &x));
    ck_assert_str_eq(x.name, "variant");
    ck_assert_str_eq(x.word, "published");
    ck_assert(fl_plan_setting(&plan, 3, &x));
    ck_assert(strcmp(x.name, "hidden") == 0 && !x.word && x.number == 7);
    ck_assert(!fl_plan_setting(&plan, 6, &x));
}
END_TEST

START_TEST(test_hypernetworks)
{
    good(0, "", "hypernetwork: affine\n");
    ck_assert(plan.layout.generator.hidden == 128 && !plan.layout.generator.scaled);
    ck_assert_uint_eq(plan.layout.shared.elements, 14943424);
    good(0, "", "hypernetwork: {hidden: 8}\n");
    ck_assert(plan.layout.generator.hidden == 8 && plan.layout.generator.scaled);
    good(0, "", "hypernetwork: chunked\n");
    ck_assert(plan.layout.generator.kind == FL_GENERATOR_CHUNKED &&
              plan.layout.generator.chunk == 1024 && plan.layout.generator.scaled);
    good(0, "", "hypernetwork: {kind: kronecker, embedding: 128, hidden: 64}\n");
    ck_assert(plan.layout.generator.kind == FL_GENERATOR_KRONECKER);
    good(2, "strategy: fedrep", "hypernetwork: affine\n");
    ck_assert(plan.layout.generator.kind == FL_GENERATOR_NONE);
    bad(0, "", "hypernetwork: affin\n", FL_R_CONF_TYPE,
        "job.yaml:27:15: hypernetwork: affin is not one of affine, chunked, kronecker");
    bad(2, "strategy: fedrep", "hypernetwork:\n  hiden: 3\n", FL_R_CONF_UNKNOWN,
        "job.yaml:28:3: hypernetwork.hiden: unknown key; did you mean hidden?");
    bad(0, "", "hypernetwork: [affine]\n", FL_R_CONF_TYPE,
        "job.yaml:27:15: hypernetwork: a list where a map is wanted");
}
END_TEST

START_TEST(test_lines_of_errors)
{
    bad(20, "  momentun: 0.5", "", FL_R_CONF_UNKNOWN,
        "job.yaml:20:3: train.momentun: unknown key; did you mean momentum?");
    bad(3, "ronds: 30", "", FL_R_CONF_UNKNOWN,
        "job.yaml:3:1: ronds: unknown key; did you mean rounds?");
    bad(15, "    - liner: {out: 128}", "", FL_R_CONF_UNKNOWN,
        "job.yaml:15:7: model.layers[7].liner: unknown key; did you mean linear?");
    bad(11, "    - conv2d: {out: 32, kernl: 5}", "", FL_R_CONF_UNKNOWN,
        "job.yaml:11:25: model.layers[3].conv2d.kernl: unknown key; did you mean kernel?");
    bad(19, "  lr: fast", "", FL_R_CONF_TYPE,
        "job.yaml:19:7: train.lr: fast is not a finite number");
    bad(22, "round: 20", "train2: 1\n", FL_R_CONF_SYNTAX, "job.yaml:23:");
    bad(13, "    - max_pool", "", FL_R_CONF_TYPE,
        "job.yaml:13:7: model.layers[5]: a layer is a map with one key");
    bad(13, "    - {max_pool: {size: 2}, flatten: }", "", FL_R_CONF_TYPE,
        "job.yaml:13:7: model.layers[5]: a layer is a map with one key");
    bad(19, "  lr: 0", "", FL_R_CONF_RANGE,
        "job.yaml:19:7: train.lr: 0 is not above 0 and at most 100");
    bad(3, "rounds: 0", "", FL_R_CONF_RANGE,
        "job.yaml:3:9: rounds: 0 is not at least 1 and at most 1000000");
    bad(20, "  lr: 0.1", "", FL_R_CONF_DUPLICATE,
        "job.yaml:20:3: train.lr: given twice, first in line 19");
    bad(19, "  batch: 10", "", FL_R_CONF_MISSING, "job.yaml:18:1: train: lr is missing");
    bad(1, "seed: 3", "", FL_R_CONF_MISSING, "job.yaml:1:1: name is missing");
    bad(8, "    - conv2d: {out: 16}", "", FL_R_CONF_MISSING,
        "job.yaml:8:7: model.layers[0].conv2d: kernel is missing");
    bad(1, "name: -x", "", FL_R_CONF_RANGE, "job.yaml:1:7: name: a name has letters");
    bad(1, "name: \"a/b\"", "", FL_R_CONF_RANGE, "job.yaml:1:7: name: a name has letters");
    bad(24, "  quorum: 25", "", FL_R_CONF_CONFLICT,
        "job.yaml:24:11: round.quorum: 25 is more than members (20)");
    bad(19, "  lr: 0.1\n  epochs: 0", "", FL_R_CONF_CONFLICT,
        "job.yaml:20:11: train.epochs: epochs and steps are both 0");
    bad(0, "", "data: {mean: [0.1, 0.2], std: [1, 1]}\n", FL_R_CONF_CONFLICT,
        "job.yaml:27:14: data.mean: 2 numbers for an input of 1 channels");
    bad(0, "", "data: {mean: [0.1]}\n", FL_R_CONF_CONFLICT,
        "job.yaml:27:7: data: mean has 1 numbers and std 0");
    bad(0, "", "data: {std: [0]}\n", FL_R_CONF_RANGE,
        "job.yaml:27:14: data.std[0]: 0 is not above");
}
END_TEST

START_TEST(test_impossible_shapes_name_the_layer_and_line)
{
    bad(11, "    - conv2d: {out: 32, kernel: 15}", "", FL_R_PLAN_MODEL,
        "job.yaml: model: layer conv2 (line 11): ");
    bad(14, "    - leaky_relu: {slope: 0.5}", "", FL_R_PLAN_MODEL,
        "job.yaml: model: layer wide (line 15): ");
    bad(17, "    - linear: {out: 11}", "", FL_R_PLAN_MODEL,
        "job.yaml: model: layer fc2 (line 17): ");
    bad(8, "    - conv2d: {out: 16, kernel: 5, name: wide}", "", FL_R_PLAN_MODEL,
        "job.yaml: model: layer wide (line 15): ");
    bad(6, "  classes: 10\n  head: 5", "", FL_R_PLAN_MODEL, "job.yaml: model: ");
    bad(5, "  input: [28, 28]", "", FL_R_CONF_RANGE, "job.yaml:5:10: model.input: one number");
    bad(5, "  input: [67108864, 67108864, 67108864]", "", FL_R_PLAN_MODEL, "job.yaml: model: ");
    bad(0, "", "set: {model.layers: []}\n", FL_R_CONF_RANGE,
        "job.yaml:27:21: model.layers: 0 layers; 1 to 128 are allowed");
}
END_TEST

/* One line that is replaced by others: an encoder over the rows of the image, and blocks. */
START_TEST(test_blocks_unfold_and_say_what_is_wrong)
{
    const char *rest = "set: {model.layers: ";
    char more[512];

    snprintf(more, sizeof more,
             "%s[{sequence: {}}, {transformer_encoder: {heads: 4, feed_forward: 8, layers: 2, "
             "dropout: 0.1}}, {global_pool: {}}, {linear: {out: 10}}]}\n",
             rest);
    good(2, "strategy: fedavg", more);
    /* sequence; per encoder layer: fork attention dropout join norm, fork linear relu dropout
     * linear dropout join norm; pool, linear */
    ck_assert_uint_eq(plan.layout.spec.layer_count, 1 + 2 * 13 + 2);
    ck_assert_int_eq(plan.layout.spec.layers[2].kind, FL_LAYER_ATTENTION);
    ck_assert_uint_eq(plan.layout.spec.layers[10].out, 28);
    bad(0, "", more, FL_R_PLAN_MODEL,
        "job.yaml: model: layer attention1: a hypernetwork makes convolutions and linear layers");
    bad(2, "strategy: fedavg", "set: {model.layers: [{sequence: {}}, {attention: {heads: 3}}]}\n",
        FL_R_PLAN_MODEL,
        "job.yaml: model: layer attention1 (line 27): 3 heads do not divide a width of 28");
    bad(2, "strategy: fedavg", "set: {model.layers: [{attention: {heads: 3}}]}\n", FL_R_PLAN_MODEL,
        "job.yaml: model: layer attention1 (line 27): attention takes a sequence");
    bad(2, "strategy: fedavg",
        "set: {model.layers: [{residual: {layers: [{conv2d: {out: 2, kernel: 3}}]}}]}\n",
        FL_R_PLAN_MODEL,
        "job.yaml: model: layer join1 (line 27): the block makes 2x26x26, the way "
        "round it 1x28x28: they cannot be added");
    bad(2, "strategy: fedavg",
        "set: {model.layers: [{residual: {layers: [{relu: {}}], stride: 2}}]}\n",
        FL_R_CONF_CONFLICT, "job.yaml:27:33: model.layers[0].residual: stride needs project");
    bad(2, "strategy: fedavg", "set: {model.layers: [{group_norm: {groups: 2}}]}\n",
        FL_R_PLAN_MODEL, "job.yaml: model: layer gn1 (line 27): 2 groups do not divide 1 channels");
    bad(2, "strategy: fedavg",
        "set: {model.layers: [{flatten: {}}, {linear: {out: 9}}, {embedding: {width: 2, "
        "categories: [3]}}]}\n",
        FL_R_PLAN_MODEL, "job.yaml: model: layer embed1 (line 27): an embedding must be the first");
    bad(2, "strategy: fedavg", "set: {model.layers: [{first_token: {}}]}\n", FL_R_PLAN_MODEL,
        "job.yaml: model: layer first1 (line 27): it takes a sequence");
    bad(2, "strategy: fedavg", "set: {model.layers: [{conv2d: {out: 4, kernel: 3, groups: 2}}]}\n",
        FL_R_PLAN_MODEL,
        "job.yaml: model: layer gconv1 (line 27): 2 groups do not divide 1 channels and out 4");
}
END_TEST

START_TEST(test_sums_that_could_overflow)
{
    const char *wide = "grid: {bits: 32}\nweights: examples\nmax_weight: 1000000\n";

    good(0, "", wide);
    ck_assert(plan.weighting == FL_WEIGHT_EXAMPLES && plan.max_weight == 1000000);
    bad(23, "  members: 2049\n  over_select: 1", wide, FL_R_PLAN_OVERFLOW,
        "job.yaml:28:14: grid.bits: sums of 2050 updates of 32 bits");
}
END_TEST

/* ---- changing a text ---- */

static char *set(char *text, const char *key, const char *value)
{
    char *ret = NULL;
    size_t size;

    int r = fl_plan_override(text, strlen(text), key, value, &ret, &size, &err);
    ck_assert_msg(r == 0, "%s", err.msg);
    ck_assert_uint_eq(strlen(ret), size);
    fl_free(text);
    return ret;
}

START_TEST(test_set_writes_the_last_section)
{
    char *text = text_with(0, "", "# the end");
    char *before = text_with(0, "", "# the end\n");

    text = set(text, "train.lr", "0.01");
    ck_assert(strncmp(text, before, strlen(before)) == 0);
    ck_assert_str_eq(text + strlen(before), "set:\n  train.lr: 0.01\n");
    text = set(text, "round.deadline", "5m   # longer");
    text = set(text, "train.lr", "0.5");
    text = set(text, "data", "{mean: [0.5], std: [1e0]}");
    text = set(text, "name", "\"a\"");
    ck_assert_str_eq(text + strlen(before), "set:\n  round.deadline: 5m\n  train.lr: 0.5\n"
                                            "  data: {\"mean\": [0.5], \"std\": [1e0]}\n"
                                            "  name: \"a\"\n");
    ck_assert_int_eq(parse(text), 0);
    ck_assert(plan.round.deadline_ms == 300000 && plan.train.body.lr == 0.5f);
    ck_assert(plan.data.channels == 1 && plan.data.std[0] == 1);
    ck_assert_str_eq(plan.name, "a");
    fl_free(before);
    fl_free(text);
}
END_TEST

/* Epsilon counts rounds times steps: fewer steps and then more rounds would run more than it says.
 */
START_TEST(test_steps_that_an_epsilon_counts_stay)
{
    static const char text[] =
        "name: c\nstrategy: fedavg\nrounds: 10\n"
        "model: {input: [4], classes: 3, layers: [{linear: {out: 3}}]}\n"
        "train: {lr: 0.1, steps: 100}\nround: {members: 2}\n"
        "privacy: {unit: example, clip: 1, delta: 1e-5, epsilon: 8, sampling_rate: 0.01, examples: "
        "100, noise_multiplier: 4}\n";
    char *ret = NULL;
    size_t size;

    ck_assert_int_eq(fl_plan_set(text, sizeof text - 1, "train.steps", "50", &ret, &size, &err),
                     -FL_R_CONF_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.msg, "its epsilon counts them"));
    ck_assert_ptr_null(ret);
    ck_assert_int_eq(fl_plan_set(text, sizeof text - 1, "train.lr", "0.2", &ret, &size, &err), 0);
    fl_free(ret);
}
END_TEST

START_TEST(test_set_refuses)
{
    char *text = text_with(0, "", "");
    char *ret = NULL;
    size_t size;
    const struct {
        const char *key, *value;
        int reason;
    } cases[] = {
        {"round.deadlin", "5m", FL_R_CONF_UNKNOWN},
        {"round.deadline", "soon", FL_R_CONF_TYPE},
        {"round.quorum", "21", FL_R_CONF_CONFLICT},
        {"train.lr", "", FL_R_CONF_SYNTAX},
        {"train.lr", "1\nrounds: 3", FL_R_CONF_SYNTAX},
        {"train.lr", "{", FL_R_CONF_SYNTAX},
        {"train.lr", "&a 1", FL_R_CONF_SYNTAX},
        {"train lr", "1", FL_R_CONF_UNKNOWN},
        {"set", "{}", FL_R_CONF_UNKNOWN},
        {"set.set", "1", FL_R_CONF_UNKNOWN},
        {"", "1", FL_R_CONF_UNKNOWN},
        {"strategy", "fedavg", FL_R_CONF_CONFLICT},
        {"model.classes", "10", FL_R_CONF_CONFLICT},
        {"strategy", "fedsgd", FL_R_PLAN_STRATEGY},
    };

    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int r = fl_plan_set(text, strlen(text), cases[i].key, cases[i].value, &ret, &size, &err);
        ck_assert_msg(r == -cases[i].reason, "%s=%s: %d %s", cases[i].key, cases[i].value, r,
                      err.msg);
        ck_assert_ptr_null(ret);
    }
    fl_free(text);
    text = text_with(0, "", "set: {}\nseed: 3\n");
    ck_assert_int_eq(fl_plan_set(text, strlen(text), "rounds", "9", &ret, &size, &err),
                     -FL_R_CONF_SYNTAX);
    ck_assert_str_eq(err.msg, "job:27:1: set: must be the last key of the file, and a map");
    fl_free(text);
    ck_assert(fl_plan_key_is_free("rounds") && fl_plan_key_is_free("train.head.lr"));
    ck_assert(!fl_plan_key_is_free("privacy.epsilon") && !fl_plan_key_is_free("roundsx"));
}
END_TEST

START_TEST(test_text_too_long)
{
    char *text = fl_new(FL_PLAN_TEXT_MAX + 2, 1), *small = text_with(0, "", ""), *ret;
    size_t size;

    memset(text, '#', FL_PLAN_TEXT_MAX + 1);
    ck_assert_int_eq(parse(text), -FL_R_LIMIT);
    text[FL_PLAN_TEXT_MAX - 5] = 0;
    memcpy(text, small, strlen(small));
    text[strlen(small)] = '#';
    ck_assert_int_eq(parse(text), 0);
    ck_assert_int_eq(fl_plan_set(text, strlen(text), "rounds", "9", &ret, &size, &err),
                     -FL_R_LIMIT);
    fl_free(small);
    fl_free(text);
}
END_TEST

START_TEST(test_every_allocation_may_fail)
{
    char *text = text_with(0, "", "set: {train.lr: 0.1}\n"), *ret;
    size_t size;
    bool hit = true;

    for (uint64_t nth = 1; hit; nth++) {
        fl_mem_fail_at(nth);
        int r = fl_plan_set(text, strlen(text), "rounds", "9", &ret, &size, &err);
        hit = fl_mem_fail_hit();
        fl_mem_fail_at(0);
        ck_assert_int_eq(r, hit ? -FL_R_NOMEM : 0);
        if (r == 0) {
            fl_free(ret);
        }
    }
    fl_free(text);
}
END_TEST

/* ---- the documentation ---- */

static char *read_doc(void)
{
    FILE *f = fopen(TEST_SOURCE_ROOT "/deploy/docs/JOB.md", "rb");
    char *text = fl_new(1, 65536);

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_gt(fread(text, 1, 65535, f), 1000);
    fclose(f);
    return text;
}

/* Cell number i of a table row, without blanks and backquotes. */
static void cell(const char *row, int i, char *to, size_t size)
{
    size_t n;

    for (i++; i > 0; i--) {
        row = strchr(row, '|') + 1;
    }
    row += strspn(row, " `");
    n = strcspn(row, "|`");
    while (n > 0 && row[n - 1] == ' ') {
        n--;
    }
    snprintf(to, size, "%.*s", (int)n, row);
}

START_TEST(test_documented_keys_exist_with_their_defaults)
{
    char *doc = read_doc(), *text = text_with(26, "  clip: 0", ""), *ret;
    struct fl_plan *plain = fl_new(1, sizeof *plain);
    int rows = 0;
    size_t size;

    text = set(set(text, "train.momentum", "0"), "train.head.epochs", "0");
    ck_assert_int_eq(parse(text), 0);
    *plain = plan;
    for (char *row = strstr(doc, "\n| `name` |"); row && row[1] == '|';
         row = strchr(row + 1, '\n')) {
        char key[64], fallback[32], change[32];
        cell(row, 0, key, sizeof key);
        cell(row, 3, fallback, sizeof fallback);
        cell(row, 4, change, sizeof change);
        if (strcmp(key, "set") == 0) {
            continue;
        }
        rows++;
        int r = fl_plan_override(text, strlen(text), key, "{no_such_key: 1}", &ret, &size, &err);
        ck_assert_msg(r != 0, "%s", key);
        ck_assert_msg(strstr(err.msg, "no_such_key") || r != -FL_R_CONF_UNKNOWN, "%s: %s", key,
                      err.msg);
        ck_assert_msg((strcmp(change, "next round") == 0) == fl_plan_key_is_free(key), "%s", key);
        if (strcmp(fallback, "required") == 0 || strcmp(fallback, "-") == 0) {
            continue;
        }
        r = fl_plan_override(text, strlen(text), key, fallback, &ret, &size, &err);
        ck_assert_msg(r == 0, "%s: %s", key, err.msg);
        ck_assert_int_eq(parse(ret), 0);
        plan.digest = plain->digest;
        ck_assert_uint_eq(plan.layout.generator.hidden, plain->layout.generator.hidden);
        plan.layout.generator = plain->layout.generator; /* has padding */
        ck_assert_msg(memcmp(&plan, plain, sizeof plan) == 0, "default of %s", key);
        fl_free(ret);
    }
    ck_assert_int_ge(rows, 45);
    fl_free(plain);
    fl_free(text);
    fl_free(doc);
}
END_TEST

START_TEST(test_documented_example_parses)
{
    char *doc = read_doc();
    char *begin = strstr(doc, "```yaml\n") + 8, *end = strstr(begin, "```");

    *end = 0;
    ck_assert_msg(parse(begin) == 0, "%s", err.msg);
    ck_assert(plan.train.serve_epochs == 2 && plan.data.channels == 1);
    fl_free(doc);
}
END_TEST

/* The table fits the model, and both ends read the same. */
START_TEST(test_tables)
{
    bad(6, "  classes: 10",
        "data:\n  table:\n    columns: [{category: {name: a, values: [x, y], buckets: 3, onehot: "
        "true}}]\n    target: {category: {name: b, values: [p, q]}}\n",
        FL_R_CONF_CONFLICT, "job.yaml:5:10: model.input: the model takes 784 numbers");
    bad(5, "  input: [5, 1, 1]", "data:\n  table:\n    columns: [{numeric: {name: a, max: 2}}]\n",
        FL_R_CONF_MISSING, "job.yaml:28:3: data.table: target is missing");
    bad(5, "  input: [1, 28, 28]",
        "data:\n  table:\n    columns: [{numeric: {name: a, min: 3, max: 2}}]\n    target: {}\n",
        FL_R_CONF_CONFLICT, "job.yaml:29:15: data.table.columns[0]: min must be below max");
    good(0, "", "data: {crop: 4, flip: true}\n");
    ck_assert(plan.data.crop == 4 && plan.data.flip && plan.data.schema.count == 0);
}
END_TEST

START_TEST(test_listed_tensors)
{
    static const char text[] = "name: own\nstrategy: fedrep\ntrainer: exec\nrounds: 1\n"
                               "model:\n  input: [4]\n  classes: 2\n  tensors:\n"
                               "    - {name: body.weight, shape: [3, 2, 5]}\n"
                               "    - {name: norm.weight, shape: [3], start: ones}\n"
                               "    - {name: steps, shape: []}\n"
                               "    - {name: head.weight, shape: [2, 3], private: true}\n"
                               "train: {lr: 0.1}\nround: {members: 1}\n";
    char other[1024];
    float shared[34], private_[6];
    struct fl_seed seed;

    ck_assert_msg(parse(text) == 0, "%s", err.msg);
    const struct fl_layout *l = &plan.layout;
    ck_assert(l->theta.count == 4 && l->theta.elements == 40 && l->shared.elements == 34);
    ck_assert(l->private_.count == 1 && l->private_.elements == 6 && l->spec.layer_count == 0);
    ck_assert(l->shared.at[2].rank == 0 && l->shared.at[2].count == 1);
    ck_assert(l->shared.at[2].offset == 33 && l->theta.at[3].offset == 34);
    fl_seed_from_u64(1, &seed);
    fl_layout_init_shared(l, &seed, shared);
    fl_layout_init_private(l, &seed, &seed, private_);
    ck_assert(shared[30] == 1 && shared[32] == 1 && shared[33] == 0);
    bool moved = false;
    for (int i = 0; i < 30; i++) {
        ck_assert(fabsf(shared[i]) <= 1 / sqrtf(10));
        moved = moved || fabsf(shared[i]) > 0.5f / sqrtf(10);
    }
    ck_assert(moved && fabsf(private_[0]) <= 1 / sqrtf(3));
    static const struct {
        const char *from, *to, *says;
        int reason;
    } cases[] = {
        {"trainer: exec", "trainer: builtin", "job.yaml:9:5: model.tensors: a list of tensors can",
         FL_R_CONF_CONFLICT},
        {"strategy: fedrep", "strategy: hyperfl", "job.yaml: model: tensors that a program trains",
         FL_R_PLAN_MODEL},
        {"name: steps", "name: norm.weight", "job.yaml: model: two tensors are named norm.weight",
         FL_R_PLAN_MODEL},
        {"[3, 2, 5]", "[90000, 90000]", "job.yaml: model: tensor body.weight: no shape",
         FL_R_PLAN_MODEL},
        {"private: true", "private: false", "job.yaml: model: this strategy needs tensors",
         FL_R_PLAN_MODEL},
        {"  classes: 2\n", "  classes: 2\n  layers: [{linear: {out: 2}}]\n",
         "job.yaml:6:3: model: a model has either", FL_R_CONF_CONFLICT},
        {"shape: [3]", "shape: [1, 1, 1, 1, 1]", "job.yaml:10:", FL_R_CONF_RANGE},
    };
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        const char *at = strstr(text, cases[i].from);
        snprintf(other, sizeof other, "%.*s%s%s", (int)(at - text), text, cases[i].to,
                 at + strlen(cases[i].from));
        int r = parse(other);
        ck_assert_msg(r == -cases[i].reason &&
                          strncmp(err.msg, cases[i].says, strlen(cases[i].says)) == 0,
                      "%zu: %d %s", i, r, err.msg);
    }
}
END_TEST

TESTS_MAIN("plan", test_a_plan_and_its_defaults, test_one_word_changes_the_strategy, test_settings,
           test_settings_of_every_strategy_by_name, test_hypernetworks, test_lines_of_errors,
           test_impossible_shapes_name_the_layer_and_line, test_blocks_unfold_and_say_what_is_wrong,
           test_sums_that_could_overflow, test_set_writes_the_last_section,
           test_steps_that_an_epsilon_counts_stay, test_set_refuses, test_text_too_long,
           test_every_allocation_may_fail, test_documented_keys_exist_with_their_defaults,
           test_documented_example_parses, test_tables, test_listed_tensors)
