/*
 * `outbox show|approve|reject`: what waits to leave and what left, for the site's administrator,
 * and the word on it. What waits comes first. Shown through the agent that runs or, if none does,
 * from its files; a word needs the agent.
 */
#include "client/commands_in.h"

#include "client/show.h"
#include "client/vault.h"
#include "common/plan/secure.h"

#include <stdio.h>
#include <string.h>

/* Who sees the update with which noise. Under `distributed` what is added here is no noise that
 * anybody sees alone: the coordinator reads a sum, with everybody's parts in it. */
static void print_noise(const json_t *o)
{
    char b[2][32];
    const char *place = fl_command_text(o, "noise");

    if (strcmp(place, "central") == 0) {
        printf("no noise added here: the coordinator sees it as it is, and adds noise to the sum "
               "that it publishes");
        return;
    }
    printf("noise of standard deviation %s added%s", fl_command_number(o, "noise_std", b[0], ""),
           strcmp(place, "distributed") == 0 ? " here, which is this site's part" : "");
    if (strcmp(place, "distributed") == 0) {
        printf(": the coordinator sees no update but the sum of all, in which the parts of at "
               "least %lld honest members are noise of %s; a member that gives its own part "
               "away takes that out of it, never this one",
               fl_command_count(o, "noise_sharers"),
               fl_command_number(o, "noise_std_sum", b[1], ""));
    }
}

/* Unit `example`: the clip is not of what leaves, it came before the sum. */
static void print_example(const json_t *o)
{
    bool whole = json_object_get(o, "tensors") != NULL,
         shared = strcmp(fl_command_text(o, "noise"), "distributed") == 0;
    long long steps = fl_command_count(o, "noised_steps");
    char b[3][32];

    printf("    unit example; what each example gives clipped to %s; ",
           fl_command_number(o, "clip", b[0], ""));
    if (shared) { /* one step, made of the exact sum: what is noised is that */
        printf("the step made of their sum has norm %s; ",
               fl_command_number(o, "norm_after", b[1], ""));
        print_noise(o);
    } else {
        printf("%lld noised %s: noise of standard deviation %s added to %s; norm %s %s", steps,
               steps == 1 ? "sum" : "sums", fl_command_number(o, "noise_std", b[2], ""),
               steps == 1 ? "it" : "each", fl_command_number(o, "norm_after", b[1], ""),
               whole ? "as released" : "before the noise");
    }
}

/* What is said of the stages of a secure sum. */
static const char *stage_text(enum fl_secagg_stage stage)
{
    switch (stage) {
    case FL_SECAGG_STAGES:
        return "";
    case FL_SECAGG_MASK:
        return ": under the masks of a secure sum, so that only sums of updates can be read";
    default:
        return ": not made of the data";
    }
}

static void print_update(const json_t *o)
{
    const json_t *x;
    char b[3][32];
    size_t i;

    printf("  %-14s round %-5lld %8lld bytes  %.16s  %s%s%s\n", fl_command_text(o, "job"),
           fl_command_count(o, "round"), fl_command_count(o, "update_bytes"),
           fl_command_text(o, "update"), fl_command_text(o, "state"),
           fl_command_text(o, "outcome")[0] ? ": " : "", fl_command_text(o, "outcome"));
    const char *exchange = fl_command_text(o, "exchange");
    enum fl_secagg_stage stage = fl_plan_secure_stage(exchange);
    if (exchange[0]) {
        printf("    exchange %s%s\n", exchange, stage_text(stage));
    }
    if (stage != FL_SECAGG_STAGES && stage != FL_SECAGG_MASK) {
        return;
    }
    if (fl_command_text(o, "clip_of")[0]) {
        print_example(o);
    } else {
        printf("    unit %s; norm %s before the clip, %s behind it (clip %s); ",
               fl_command_text(o, "unit"), fl_command_number(o, "norm_before", b[0], ""),
               fl_command_number(o, "norm_after", b[1], ""),
               fl_command_number(o, "clip", b[2], ""));
        print_noise(o);
    }
    printf("; %lld values cut to the grid\n", fl_command_count(o, "saturated"));
    if (!json_object_get(o, "tensors")) {
        return;
    }
    printf("    tensors:");
    json_array_foreach(json_object_get(o, "tensors"), i, x)
    {
        printf("%s %s (%lld)", i ? "," : "", fl_command_text(x, "name"),
               fl_command_count(x, "elements"));
    }
    printf("\n");
}

static void print_outbox(const json_t *all)
{
    const json_t *o;
    size_t i;

    printf("%s: %zu waiting, the last %zu that left, hold: %s\n", fl_command_text(all, "agent"),
           json_array_size(json_object_get(all, "waiting")),
           json_array_size(json_object_get(all, "left")), fl_command_text(all, "hold"));
    json_array_foreach(json_object_get(all, "waiting"), i, o)
    {
        print_update(o);
    }
    json_array_foreach(json_object_get(all, "left"), i, o)
    {
        print_update(o);
    }
}

static void print_decided(const json_t *o)
{
    bool approved = strcmp(fl_command_text(o, "decided"), "approve") == 0;

    printf("%s: %s %s round %lld, update %.16s: ", fl_command_text(o, "agent"),
           approved ? "approved" : "rejected", fl_command_text(o, "job"),
           fl_command_count(o, "round"), fl_command_text(o, "update"));
    if (approved) {
        printf("it is entered in the ledger, and its %lld bytes go to the coordinator now (unless "
               "their round is over: then nothing is paid for)\n",
               fl_command_count(o, "update_bytes"));
    } else {
        printf("nothing of it leaves or is paid for; the coordinator is told that it was declined "
               "(%d %s)\n",
               FL_R_REJECTED, fl_reason_name(FL_R_REJECTED));
    }
}

static int outbox_offline(const struct fl_config *config, const struct fl_config_agent *agent,
                          const struct fl_command *c, struct fl_err *e)
{
    struct fl_ledger *l = NULL;
    char dir[FL_VAULT_PATH_MAX];
    int r = fl_command_ledger(config, agent, &l, e);

    if (r == 0) {
        snprintf(dir, sizeof dir, "%s/%s", config->state, agent->name);
        json_t *document = fl_show_outbox(dir, l, agent, c->limit, e);
        r = document ? 0 : e->code;
        if (document) {
            c->json ? fl_command_print_json(document) : print_outbox(document);
        }
        json_decref(document);
    }
    fl_ledger_close(l);
    return r;
}

int fl_command_outbox(const struct fl_config *config, const struct fl_command *c, struct fl_err *e)
{
    bool show = !c->what || strcmp(c->what, "show") == 0;
    int r = fl_command_ask(config, c, show ? print_outbox : print_decided, e);

    return r == -FL_R_CTL_CONNECT && show ? fl_command_each(config, c, outbox_offline, e) : r;
}
