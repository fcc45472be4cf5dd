/*
 * The outbox as the site's administrator sees it: what waits (for a word, or for the coordinator)
 * from the files beside the updates, what left from the report. Nothing here is secret from the
 * site, and nothing of it is ever sent.
 */
#include "client/report.h"
#include "client/show.h"
#include "client/vault.h"
#include "common/base/mem.h"
#include "common/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const shown[] = {
    "job",         "round",        "update",  "update_bytes",  "unit",
    "norm_before", "norm_after",   "clip",    "noise_std",     "saturated",
    "tensors",     "time",         "outcome", "epsilon",       "exchange",
    "clip_of",     "noised_steps", "noise",   "noise_std_sum", "noise_sharers"};

/* The fields of a report's line that are about what left. */
static json_t *about(const json_t *line, const char *state)
{
    json_t *o = json_object();

    fl_report_text(o, "state", state);
    for (size_t i = 0; i < FL_COUNT(shown); i++) {
        json_t *v = json_object_get(line, shown[i]);
        if (v) {
            json_object_set(o, shown[i], v);
        }
    }
    return o;
}

/* Sealed updates are in the ledger once they are paid for. */
static const char *state_of(struct fl_ledger *l, const struct fl_config_agent *agent,
                            const json_t *offer)
{
    const char *hex = json_string_value(json_object_get(offer, "incarnation"));
    struct fl_key key = {.round = (uint64_t)json_integer_value(json_object_get(offer, "round")),
                         .exchange =
                             (uint32_t)json_integer_value(json_object_get(offer, "exchange"))};
    struct fl_release release;

    for (size_t i = 0; hex && i < FL_INCARNATION_SIZE; i++) {
        unsigned byte = 0;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            break;
        }
        key.incarnation[i] = (uint8_t)byte;
    }
    if (fl_ledger_find(l, &key, &release, NULL) == 1) {
        return "released, not yet acknowledged";
    }
    return agent->hold == FL_HOLD_APPROVE ? "waits for approval" : "sealed, not yet released";
}

static int add_waiting(const char *folder, struct fl_ledger *l, const struct fl_config_agent *agent,
                       json_t *list, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX + 300];
    struct dirent *entry;
    DIR *d = opendir(folder);

    if (!d) {
        return errno == ENOENT ? 0 : fl_fail_sys(e, FL_R_STORE_OPEN, errno, "%s", folder);
    }
    while ((entry = readdir(d)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');
        uint8_t *text;
        size_t size;
        if (!dot || strcmp(dot, ".offer") != 0) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (fl_file_read(path, FL_VAULT_OFFER_MAX, &text, &size, NULL)) {
            continue; /* it left meanwhile */
        }
        json_t *all = json_loadb((const char *)text, size, 0, NULL);
        fl_free(text);
        json_array_append_new(list, about(json_object_get(all, "report"),
                                          state_of(l, agent, json_object_get(all, "offer"))));
        json_decref(all);
    }
    closedir(d);
    return 0;
}

static int add_left(const char *path, uint32_t limit, json_t *list, struct fl_err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;

    if (!f) {
        return errno == ENOENT ? 0 : fl_fail_sys(e, FL_R_STORE_OPEN, errno, "%s", path);
    }
    while (limit && getline(&line, &room, f) > 0) {
        json_t *o = json_loads(line, 0, NULL); /* NULL: cut by a crash */
        if (json_object_get(o, "update")) {
            json_array_append_new(list, about(o, "left"));
            if (json_array_size(list) > limit) {
                json_array_remove(list, 0);
            }
        }
        json_decref(o);
    }
    free(line);
    fclose(f);
    return 0;
}

json_t *fl_show_outbox(const char *dir, struct fl_ledger *l, const struct fl_config_agent *agent,
                       uint32_t limit, struct fl_err *e)
{
    char path[FL_VAULT_PATH_MAX];
    json_t *waiting = json_array(), *left = json_array(), *all = NULL;

    snprintf(path, sizeof path, "%s/outbox", dir);
    int r = add_waiting(path, l, agent, waiting, e);
    if (r == 0) {
        snprintf(path, sizeof path, "%s/report.jsonl", dir);
        r = add_left(path, limit < FL_SHOW_RELEASES_MAX ? limit : FL_SHOW_RELEASES_MAX, left, e);
    }
    if (r == 0) {
        all = json_object();
        fl_report_text(all, "agent", agent->name);
        fl_report_text(all, "hold", agent->hold == FL_HOLD_APPROVE ? "approve" : "none");
        json_object_set(all, "left", left);
        json_object_set(all, "waiting", waiting);
    }
    json_decref(left);
    json_decref(waiting);
    return all;
}
