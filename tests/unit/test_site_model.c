/* What a site brings along: its width, and the file of a frozen base, found by digest. */
#include "client/site_model.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/param/param.h"
#include "common/nn/tensors.h"
#include "tests/lib/check_main.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char text[] =
    "name: base\n"
    "strategy: fedrep\n"
    "rounds: 1\n"
    "model:\n"
    "  input: [4]\n"
    "  classes: 2\n"
    "  layers: [{linear: {out: 6}}, {relu: {}}, {linear: {out: 3}}, {linear: "
    "{out: 3}}, {linear: {out: 2}}]\n"
    "  parameters:\n"
    "    - {layers: [fc1], kind: nested}\n"
    "    - {layers: [fc2], kind: frozen}\n"
    "%s"
    "train: {lr: 0.1}\n"
    "round: {members: 1}\n";

static void parse(struct fl_plan *plan, const char *base)
{
    char job[2048];
    struct fl_err e = {0};
    int n = snprintf(job, sizeof job, text, base);

    ck_assert_msg(fl_plan_parse(plan, "job", job, (size_t)n, &e) == 0, "%s", e.msg);
}

START_TEST(a_site_brings_its_width_and_the_base)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_config_agent *agent = fl_new(1, sizeof *agent);
    char one[] = "/tmp/test_site_model_XXXXXX", two[] = "/tmp/test_site_model_XXXXXX";
    struct fl_err e = {0};
    uint8_t *bytes;
    size_t size;

    parse(plan, "");
    const struct fl_layout *l = &plan->layout;
    float *theta = fl_new(l->theta.elements, sizeof *theta);
    float *own = fl_new(l->private_.elements, sizeof *own);
    size_t width = fl_tensors_find(&l->private_, "width")->offset;
    size_t fc2 = fl_tensors_find(&l->private_, "fc2.weight")->offset;
    for (size_t i = 0; i < l->theta.elements; i++) {
        theta[i] = (float)i;
    }
    agent->width = 0.5f;
    ck_assert_int_eq(fl_site_model(agent, plan, own, &e), 0);
    ck_assert(own[width] == 0.5f && own[fc2] == 0);

    /* Two files; the digest says that it is the second. */
    ck_assert_int_eq(fl_tensors_write(&l->theta, theta, &bytes, &size, &e), 0);
    int fd = mkstemp(one);
    ck_assert_int_eq(write(fd, "other", 5), 5);
    close(fd);
    fd = mkstemp(two);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
    struct fl_digest digest;
    char hex[FL_DIGEST_HEX], base[128];
    fl_digest_of(bytes, size, &digest);
    fl_digest_hex(&digest, hex);
    snprintf(base, sizeof base, "  base: %s\n", hex);
    parse(plan, base);
    snprintf(agent->models[0], sizeof agent->models[0], "%s", one);
    agent->model_count = 1;
    ck_assert_int_eq(fl_site_model(agent, plan, own, &e), -FL_R_CAPABILITY);
    ck_assert_ptr_nonnull(strstr(e.msg, hex));
    snprintf(agent->models[1], sizeof agent->models[1], "%s", two);
    agent->model_count = 2;
    ck_assert_msg(fl_site_model(agent, plan, own, &e) == 0, "%s", e.msg);
    ck_assert_float_eq(own[fc2], theta[fl_tensors_find(&l->theta, "fc2.weight")->offset]);
    ck_assert(own[width] == 0.5f);

    unlink(one);
    unlink(two);
    fl_free(bytes);
    fl_free(theta);
    fl_free(own);
    fl_free(agent);
    fl_free(plan);
}
END_TEST

/* A network that an agent left of an earlier job is the site's examples in another form. */
START_TEST(a_base_made_of_a_sites_examples_is_refused_per_example)
{
    struct fl_plan *plan = fl_new(1, sizeof *plan);
    struct fl_config_agent *agent = fl_new(1, sizeof *agent);
    char path[] = "/tmp/test_site_model_XXXXXX", hex[FL_DIGEST_HEX], base[128];
    const struct fl_meta meta[] = {{"job", "earlier"}, {"incarnation", "00ff"}};
    struct fl_err e = {0};
    struct fl_digest digest;
    uint8_t *bytes;
    size_t size;

    parse(plan, "");
    float *theta = fl_new(plan->layout.theta.elements, sizeof *theta);
    float *own = fl_new(plan->layout.private_.elements, sizeof *own);
    close(mkstemp(path));
    for (size_t metas = 0; metas <= 2; metas++) {
        ck_assert_int_eq(fl_tensors_save(path, &plan->layout.theta, theta, meta, metas, &e), 0);
        ck_assert_int_eq(fl_file_read(path, 1 << 20, &bytes, &size, &e), 0);
        fl_digest_of(bytes, size, &digest);
        fl_free(bytes);
        fl_digest_hex(&digest, hex);
        snprintf(base, sizeof base, "  base: %s\n", hex);
        parse(plan, base);
        snprintf(agent->models[0], sizeof agent->models[0], "%s", path);
        agent->model_count = 1;
        ck_assert_msg(fl_site_model(agent, plan, own, &e) == 0, "%s", e.msg);
        plan->privacy.unit = FL_UNIT_EXAMPLE;
        ck_assert_int_eq(fl_site_model(agent, plan, own, &e), metas < 2 ? 0 : -FL_R_PLAN_PRIVACY);
    }
    ck_assert_ptr_nonnull(strstr(e.msg, path));
    ck_assert_ptr_nonnull(strstr(e.msg, "made by job earlier from the site's examples"));
    unlink(path);
    fl_free(theta);
    fl_free(own);
    fl_free(agent);
    fl_free(plan);
}
END_TEST

TESTS_MAIN("site_model", a_site_brings_its_width_and_the_base,
           a_base_made_of_a_sites_examples_is_refused_per_example)
