/*
 * Who sits out of a job's secure sums (strategy/distrust.h): gathered in the job's lane when a
 * sum's last stage is over, well or not; read back with every published checkpoint. Whoever sits
 * out is simply not among the candidates of the next round, and asks on as if there were no place
 * for it.
 */
#include "server/co.h"

#include "common/base/log.h"
#include "common/base/mem.h"
#include "server/strategy/distrust.h"

#include <stdio.h>
#include <string.h>

/* ---- [lane] ---- */

static int distrust_of(const struct fl_checkpoint *c, struct fl_distrust *ret, struct fl_err *e)
{
    struct fl_section section;
    int r = fl_checkpoint_section(c, FL_DISTRUST_SECTION, &section, e);

    memset(ret, 0, sizeof *ret);
    if (r <= 0) {
        return r;
    }
    r = fl_distrust_get(section.bytes, section.size, ret, e);
    fl_free(section.bytes);
    return r;
}

int co_distrust_add(struct co_sums *s, struct fl_err *e)
{
    uint32_t count = fl_secure_complaints(s->secure, NULL, 0);
    struct fl_secagg_complaint *list = fl_try(count ? count : 1, sizeof *list);
    struct fl_section made = {.name = FL_DISTRUST_SECTION};
    struct fl_distrust d = {0};
    size_t size = 0;
    int r = list ? 0 : fl_fail(e, FL_R_NOMEM, "%u complaints", count);

    if (r == 0 && count > 0) {
        (void)fl_secure_complaints(s->secure, list, count);
        r = distrust_of(s->base, &d, e);
        r = r ? r : fl_distrust_add(&d, s->round, list, count, e);
        r = r ? r : fl_distrust_put(&d, &made.bytes, &size, e);
        if (r == 0) {
            made.size = size;
            co_sums_section(s, &made);
        }
    }
    fl_distrust_fini(&d);
    fl_free(list);
    return r;
}

/* ---- [job] ---- */

int co_distrust_read(const struct fl_checkpoint *c, uint64_t round, struct co_distrust *ret,
                     struct fl_err *e)
{
    struct fl_distrust d;
    int r = distrust_of(c, &d, e);

    memset(ret, 0, sizeof *ret);
    r = r ? r : fl_distrust_out(&d, round, &ret->out, &ret->count, e);
    fl_distrust_fini(&d);
    return r;
}

/* ---- on the loop ---- */

bool co_distrust_allows(const struct co_job *j, uint64_t agent)
{
    for (uint32_t i = 0; i < j->distrust.count; i++) {
        if (j->distrust.out[i].agent == agent) {
            return false;
        }
    }
    return true;
}

void co_distrust_take(struct co *co, struct co_job *j, struct co_distrust *fresh, uint64_t round)
{
    bool offer = j->distrust.count > 0; /* some may be back */

    fl_free(j->distrust.out);
    j->distrust = *fresh;
    *fresh = (struct co_distrust){0};
    for (uint32_t i = 0; i < j->distrust.count; i++) {
        const struct fl_distrust_out *out = &j->distrust.out[i];
        const struct fl_roster_agent *a = fl_roster_by_id(co->roster, out->agent);
        char why[96] = "the shares that it dealt do not fit together";
        if (!out->proven) {
            snprintf(why, sizeof why, "%u other%s and it cannot read each other's shares",
                     out->pairs, out->pairs == 1 ? "" : "s");
        }
        fl_log(FL_LOG_WARN, j->name, "%s sits out of round %llu: %s", a ? a->name : "an agent",
               (unsigned long long)round, why);
        co_event(co, j->id,
                 &(struct fl_round_event){.type = FL_ROUND_EV_UNAVAILABLE, .agent = out->agent},
                 false);
    }
    if (offer) {
        co_job_offer_agents(co, j);
    }
}
