/*
 * Has a report its end? A job that is done at the coordinator is not yet done here: an agent hears
 * of it when it asks for work, fetches the final model and judges it at home, and only then writes
 * the line `final`. So whoever reads the report of a job that has just ended is told, or waits.
 */
#include "client/commands_in.h"

#include "client/vault.h"
#include "common/base/conf.h"
#include "common/io/ctl_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 100 };

bool fl_command_report_ended(const char *path, const char *job)
{
    char incarnation[2 * FL_INCARNATION_SIZE + 1] = "", *line = NULL;
    size_t room = 0;
    bool ended = false;
    FILE *f = fopen(path, "re");

    while (f && getline(&line, &room, f) > 0) {
        json_t *o = json_loads(line, 0, NULL); /* NULL: cut by a crash */
        if (strcmp(fl_command_text(o, "job"), job) == 0) {
            if (strcmp(fl_command_text(o, "incarnation"), incarnation) !=
                0) { /* the name was used again */
                snprintf(incarnation, sizeof incarnation, "%s", fl_command_text(o, "incarnation"));
                ended = false;
            }
            ended = ended || strcmp(fl_command_text(o, "event"), "final") == 0;
        }
        json_decref(o);
    }
    free(line);
    if (f) {
        fclose(f);
    }
    return ended;
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The first agent without an end; NULL = all have theirs. */
static const char *missing(const struct fl_config *config, const struct fl_command *c)
{
    char path[FL_VAULT_PATH_MAX];

    for (uint32_t i = 0; i < config->agent_count; i++) {
        const struct fl_config_agent *a = &config->agents[i];
        int w = snprintf(path, sizeof path, "%s/%s/report.jsonl", config->state, a->name);
        if ((!c->agent || strcmp(c->agent, a->name) == 0) &&
            (w < 0 || (size_t)w >= sizeof path || !fl_command_report_ended(path, c->job))) {
            return a->name;
        }
    }
    return NULL;
}

int fl_command_report_wait(const struct fl_config *config, const struct fl_command *c,
                           struct fl_err *e)
{
    static const struct fl_ctl_request alive = {.verb = "status"};
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    uint64_t most = 0, until;
    const char *name;

    if (!c->job || !fl_conf_duration(c->wait, &most)) {
        return fl_fail(e, FL_R_ARG, "--wait TIME, as 60s, needs --job NAME too");
    }
    until = now_ms() + most;
    while ((name = missing(config, c)) != NULL) {
        int r = fl_ctl_ask(config->socket.path, &alive, 60000, NULL, NULL, e);
        if (r) {
            return fl_wrap(e, r, "agent %s has no final line of job %s, and makes none now", name,
                           c->job);
        }
        if (now_ms() >= until) {
            return fl_fail(e, FL_R_TIMEOUT,
                           "agent %s has no final line of job %s after %s: is the job done?", name,
                           c->job, c->wait);
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}
