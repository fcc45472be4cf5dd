/*
 * check-data --export DIR and --initial DIR: what a site would train on, and what a job begins
 * with, in files for other programs, so that two frameworks can be compared on exactly the same.
 * Both are what the agent itself uses: the data set that it loads, and the initial values of
 * common/nn. Nothing leaves the site by it; who carries the files on does.
 */
#include "client/commands_in.h"

#include "client/data/npy_out.h"
#include "client/site_model.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* FOLDER/NAME.npy for each tensor of a vector. */
static int save_tensors(const char *folder, const struct fl_tensors *tensors, const float *values,
                        struct fl_err *e)
{
    char path[FL_CONFIG_PATH_MAX];
    int r = tensors->count ? fl_file_make_dirs(folder, e) : 0;

    for (uint32_t i = 0; r == 0 && i < tensors->count; i++) {
        const struct fl_tensor *t = &tensors->at[i];
        if (snprintf(path, sizeof path, "%s/%s.npy", folder, t->name) >= (int)sizeof path) {
            return fl_fail(e, FL_R_CONF_RANGE, "%s: too long a path", folder);
        }
        r = fl_npy_save(path, "<f4", t->rank, t->shape, values + t->offset, e);
    }
    return r;
}

/* The seed of a site's own draws. False: it is drawn when the agent first starts. */
static bool site_seed(const struct fl_config *config, const struct fl_config_agent *agent,
                      struct fl_seed *ret, int *status, struct fl_err *e)
{
    char path[FL_CONFIG_PATH_MAX];
    uint8_t *bytes = NULL;
    size_t size = 0;

    if (snprintf(path, sizeof path, "%s/%s/seed", config->state, agent->name) >= (int)sizeof path ||
        access(path, F_OK) != 0) {
        return false;
    }
    *status = fl_file_read(path, FL_SEED_SIZE, &bytes, &size, e);
    if (*status == 0 && size == FL_SEED_SIZE) {
        memcpy(ret->bytes, bytes, FL_SEED_SIZE);
    }
    fl_free(bytes);
    return *status == 0 && size == FL_SEED_SIZE;
}

int fl_command_export_initial(const struct fl_config *config, const struct fl_config_agent *agent,
                              const struct fl_plan *plan, const char *folder, struct fl_err *e)
{
    const struct fl_layout *l = &plan->layout;
    float *shared = fl_try_aligned(l->shared.elements + 1, sizeof *shared);
    float *private_ = fl_try_aligned(l->private_.elements + 1, sizeof *private_);
    char path[FL_CONFIG_PATH_MAX];
    struct fl_seed job, own;
    int r = shared && private_ ? 0 : fl_fail(e, FL_R_NOMEM, "out of memory");

    fl_seed_from_u64(plan->seed, &job);
    if (r == 0) {
        fl_layout_init_shared(l, &job, shared);
        snprintf(path, sizeof path, "%s/shared", folder);
        r = save_tensors(path, &l->shared, shared, e);
    }
    if (r == 0 && site_seed(config, agent, &own, &r, e)) {
        fl_layout_init_private(l, &job, &own, private_);
        snprintf(path, sizeof path, "%s/%s", folder, agent->name);
        r = fl_site_model(agent, plan, private_, e);
        r = r ? r : save_tensors(path, &l->private_, private_, e);
    }
    fl_free(shared);
    fl_free(private_);
    return r;
}

int fl_command_export_data(const struct fl_config_agent *agent, const struct fl_dataset *d,
                           const char *folder, struct fl_err *e)
{
    int r = fl_file_make_dirs(folder, e);
    return r ? r : fl_npy_save_dataset(folder, agent->name, d, e);
}
