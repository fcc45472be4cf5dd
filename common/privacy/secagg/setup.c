#include "common/privacy/secagg/mask.h"
#include "common/privacy/secagg/secagg.h"

const char *fl_secagg_stage_name(enum fl_secagg_stage stage)
{
    static const char *const names[FL_SECAGG_STAGES] = {"advertise", "share", "mask", "sign",
                                                        "unmask"};

    return stage < FL_SECAGG_STAGES ? names[stage] : "?";
}

int fl_secagg_setup_check(const struct fl_secagg_setup *s, struct fl_err *e)
{
    struct fl_secagg_rule rule;
    size_t bytes;

    if (s->members_min < 2 || s->members_max < s->members_min || s->survivors_min < 2) {
        return fl_fail(e, FL_R_CONF_RANGE, "a secure sum needs at least 2 members and 2 survivors");
    }
    if (s->survivors_min > s->members_min) {
        return fl_fail(e, FL_R_CONF_CONFLICT, "%u survivors cannot remain of %u members",
                       s->survivors_min, s->members_min);
    }
    int r = fl_secagg_ring_check(s->bits, s->members_max, s->max, e);
    if (r < 0) {
        return r;
    }
    if (!fl_ring_bytes(s->bits, s->count, &bytes)) {
        return fl_fail(e, FL_R_LIMIT, "a vector of %llu values", (unsigned long long)s->count);
    }
    r = fl_secagg_rule(s->members_min, s->corrupt_permille, s->dropout_permille, &rule, e);
    if (r < 0) {
        return r;
    }
    return fl_secagg_rule(s->members_max, s->corrupt_permille, s->dropout_permille, &rule, e);
}
