#include "client/rows.h"

#include "common/io/file.h"

#include <stdio.h>
#include <unistd.h>

static bool path_of(const struct fl_config *config, const struct fl_config_agent *agent,
                    const char *name, char ret[FL_CONFIG_PATH_MAX + 96])
{
    int w = snprintf(ret, FL_CONFIG_PATH_MAX + 96, "%s/%s/%s", config->state, agent->name, name);

    (void)w; /* a name has at most 63 bytes */
    return access(ret, F_OK) == 0;
}

static bool fits_hashed(struct fl_data_source s)
{
    s.deal = FL_DEAL_HASHED;
    return fl_dataset_deal(&s, NULL) == 0;
}

int fl_rows_settle(const struct fl_config *config, const struct fl_config_agent *agent,
                   enum fl_rows_use use, struct fl_data_source *ret, struct fl_err *e)
{
    char path[FL_CONFIG_PATH_MAX + 96];
    struct fl_data_source s = agent->data;
    bool old = path_of(config, agent, "ledger.db", path);
    bool has_key = path_of(config, agent, "rows.key", path);
    int r = 0;

    if (s.deal == FL_DEAL_UNSAID) {
        s.deal = (has_key || !old) && fits_hashed(s) ? FL_DEAL_HASHED : FL_DEAL_PLACED;
    }
    if (has_key || (use == FL_ROWS_KEEP && (!old || s.deal == FL_DEAL_HASHED))) {
        r = fl_file_secret(path, s.role_key.bytes, FL_SEED_SIZE, e);
    } else if (s.deal == FL_DEAL_HASHED && use == FL_ROWS_LOOK) {
        r = fl_entropy(s.role_key.bytes, FL_SEED_SIZE, e);
    } else if (s.deal == FL_DEAL_HASHED && use == FL_ROWS_EXACT && fl_dataset_hashed(&s)) {
        r = fl_fail(e, FL_R_CONF_CONFLICT,
                    "which rows train is decided by %s, which the agent makes when it first starts",
                    path);
    }
    if (r == 0) {
        *ret = s;
    }
    return r;
}
