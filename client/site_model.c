#include "client/site_model.h"

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/nn/param/param.h"

/* The networks that an agent keeps of a job (served.h) say which one, and were trained on the
 * site's own examples: built upon, they would bring these into releases that no event accounts for.
 */
static int check_origin(const struct fl_plan *plan, const struct fl_tensor_file *f,
                        struct fl_err *e)
{
    if (plan->privacy.unit != FL_UNIT_EXAMPLE || !fl_tensor_file_meta(f, "incarnation")) {
        return 0;
    }
    const char *job = fl_tensor_file_meta(f, "job");
    return fl_fail(e, FL_R_PLAN_PRIVACY,
                   "a site's own network, made by job %.64s from the site's examples; no epsilon "
                   "per example holds on top of it",
                   job ? job : "(unnamed)");
}

/* [FL_R_CAPABILITY] when none of the agent's files has this digest. A file is a job's by its bytes,
 * never by its name. */
static int find(const struct fl_config_agent *agent, const struct fl_digest *want,
                uint8_t **ret_bytes, size_t *ret_size, const char **ret_path, struct fl_err *e)
{
    char hex[FL_DIGEST_HEX];
    struct fl_digest found;

    for (uint32_t i = 0; i < agent->model_count; i++) {
        int r = fl_file_read(agent->models[i], FL_CONFIG_MODEL_MAX, ret_bytes, ret_size, e);
        if (r) {
            return r;
        }
        fl_digest_of(*ret_bytes, *ret_size, &found);
        if (fl_digest_equal(&found, want)) {
            *ret_path = agent->models[i];
            return 0;
        }
        fl_free(*ret_bytes);
    }
    fl_digest_hex(want, hex);
    return fl_fail(
        e, FL_R_CAPABILITY,
        "the job builds on the weights %s (model.base), and none of this site's `models` "
        "has that digest",
        hex);
}

int fl_site_model(const struct fl_config_agent *agent, const struct fl_plan *plan, float *private_,
                  struct fl_err *e)
{
    const struct fl_layout *l = &plan->layout;
    const struct fl_tensor *width = fl_tensors_find(&l->private_, "width");
    const char *path = NULL;
    uint8_t *bytes;
    size_t size;

    if (width && width->fixed && agent->width > 0) {
        private_[width->offset] = agent->width;
    }
    if (fl_digest_is_zero(&plan->model_base)) {
        return 0;
    }
    struct fl_tensor_file *f = fl_try(1, sizeof *f);
    if (!f) {
        return fl_fail(e, FL_R_NOMEM, "the table of a file of weights");
    }
    int r = find(agent, &plan->model_base, &bytes, &size, &path, e);
    if (r == 0) {
        r = fl_tensor_file_view(bytes, size, f, e);
        if (r == 0) {
            r = check_origin(plan, f, e);
            r = r ? r : fl_param_base(l, f, private_, e);
            fl_tensor_file_close(f);
        }
        fl_free(bytes);
        r = r ? fl_wrap(e, r, "%s", path) : 0;
    }
    fl_free(f);
    return r;
}
