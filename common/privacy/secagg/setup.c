#include "common/privacy/secagg/mask.h"
#include "common/privacy/secagg/secagg.h"

const char *fl_secagg_stage_name(enum fl_secagg_stage stage)
{
    static const char *const names[FL_SECAGG_STAGES] = {"advertise", "share", "mask", "sign",
                                                        "unmask"};

    return stage < FL_SECAGG_STAGES ? names[stage] : "?";
}

int fl_secagg_setup_rule(const struct fl_secagg_setup *s, uint32_t members,
                         struct fl_secagg_rule *ret, struct fl_err *e)
{
    uint32_t corrupt = s->corrupt_permille;

    if (members > 0 && s->corrupt_least > 0) { /* rounded up, so that as many come of it */
        uint64_t least = ((uint64_t)s->corrupt_least * 1000 + members - 1) / members;
        corrupt = least > corrupt ? (uint32_t)(least < 1000 ? least : 1000) : corrupt;
    }
    return fl_secagg_rule(members, corrupt, s->dropout_permille, ret, e);
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
    r = fl_secagg_setup_rule(s, s->members_min, &rule, e);
    return r < 0 ? r : fl_secagg_setup_rule(s, s->members_max, &rule, e);
}
