/*
 * `round explain`: not numbers but answers. What does this round wait for, who is missing and why,
 * what happens next and when. Built from one round and its members as they pass by; of a cohort of
 * thousands only the first FL_CONTROL_NAMED of each kind are named, the rest are counted.
 */
#include "server/control/calls.h"
#include "server/control/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void fl_control_explain_fini(struct fl_control_explain *x)
{
    json_decref(x->round);
    json_decref(x->waiting);
    json_decref(x->lost);
    *x = (struct fl_control_explain){0};
}

void fl_control_explain_round(struct fl_control_call *k, const struct fl_control_round *r)
{
    struct fl_control_explain *x = &k->explain;

    fl_control_explain_fini(x);
    x->round = fl_control_json_round(r);
    x->waiting = json_array();
    x->lost = json_array();
    x->r = *r;
    snprintf(x->state, sizeof x->state, "%s", r->state);
    x->r.state = x->state;
    x->r.job = NULL;
}

void fl_control_explain_member(struct fl_control_call *k, const struct fl_control_member *m)
{
    struct fl_control_explain *x = &k->explain;
    bool lost = m->reason != 0 || strcmp(m->state, "lost") == 0;

    if (strcmp(m->state, "committed") == 0) {
        return;
    }
    uint32_t *count = lost ? &x->lost_count : &x->waiting_count;
    if (++*count <= FL_CONTROL_NAMED) {
        /* A NULL document is refused by jansson; then one name is missing from a list. */
        json_array_append_new(lost ? x->lost : x->waiting, fl_control_json_member(m));
    }
}

__attribute__((format(printf, 2, 3))) static void say(json_t *lines, const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    json_array_append_new(lines, json_string(line));
}

/* "in 12 s" or "12 s ago" */
static const char *when(char *text, size_t size, uint64_t at_ms, uint64_t now_ms)
{
    if (at_ms >= now_ms) {
        snprintf(text, size, "in %.0f s", (double)(at_ms - now_ms) / 1000);
    } else {
        snprintf(text, size, "%.0f s ago", (double)(now_ms - at_ms) / 1000);
    }
    return text;
}

static void say_filling(json_t *lines, const struct fl_control_round *r, uint64_t now_ms)
{
    char t[32];

    if (r->candidates >= r->quorum && r->deadline_ms) {
        say(lines,
            "%u agents could take part and %u are wanted; it begins with whoever is there %s, or "
            "at once when enough are.",
            r->candidates, r->wanted, when(t, sizeof t, r->deadline_ms, now_ms));
    } else if (r->candidates >= r->quorum) {
        say(lines, "%u agents could take part; it begins at once.", r->candidates);
    } else {
        say(lines, "%u agents could take part, the quorum is %u: it waits for %u more to connect.",
            r->candidates, r->quorum, r->quorum - r->candidates);
        say(lines,
            "`agent list` shows who is connected. An agent that is, and is missing here, is not "
            "allowed this job by its site's own configuration, or works for another job.");
    }
}

static void say_collecting(json_t *lines, const struct fl_control_round *r, uint64_t now_ms)
{
    char t[32] = "at its deadline";
    uint32_t missing = r->wanted > r->committed ? r->wanted - r->committed : 0;

    if (r->deadline_ms) {
        when(t, sizeof t, r->deadline_ms, now_ms);
    }
    if (r->invited <= r->committed) {
        say(lines,
            "%u updates are committed and nobody is still out; agents that ask for work "
            "before the deadline are invited for the %u that are missing.",
            r->committed, missing);
    } else {
        say(lines, "%u updates are committed; it closes at once when there are %u.", r->committed,
            r->committed + missing);
    }
    if (r->committed >= r->quorum) {
        say(lines, "The quorum of %u is reached: it closes %s at the latest.", r->quorum, t);
    } else if (r->gives_up) {
        say(lines,
            "The quorum is %u: unless %u more arrive its members get more time %s (this is attempt "
            "%u); after the last attempt the round is given up, and the next one begins with the "
            "same model.",
            r->quorum, r->quorum - r->committed, t, r->attempt + 1);
    } else {
        say(lines,
            "The quorum is %u: unless %u more arrive it is abandoned %s and tried again with a "
            "fresh cohort (this is attempt %u).",
            r->quorum, r->quorum - r->committed, t, r->attempt + 1);
    }
}

static void say_people(json_t *lines, const struct fl_control_explain *x)
{
    if (x->waiting_count) {
        say(lines, "Still out: %u, the first of them under waiting_for.", x->waiting_count);
    }
    if (x->lost_count) {
        say(lines, "Lost: %u, the first of them under lost, each with its reason.", x->lost_count);
    }
}

static void say_all(json_t *lines, const struct fl_control_explain *x, uint64_t now_ms)
{
    const struct fl_control_round *r = &x->r;
    char t[32];

    if (strcmp(r->state, "fill") == 0) {
        say_filling(lines, r, now_ms);
    } else if (strcmp(r->state, "collect") == 0) {
        say_collecting(lines, r, now_ms);
        say_people(lines, x);
    } else if (strcmp(r->state, "published") == 0) {
        say(lines, "It was published %s from %u updates of %u invited agents.",
            when(t, sizeof t, r->published_ms, now_ms), r->committed, r->invited);
    } else if (strcmp(r->state, "abandoned") == 0) {
        say(lines, "It was abandoned with %u of at least %u updates.", r->committed, r->quorum);
        say_people(lines, x);
    } else {
        say(lines, "No more updates are taken; the next model is made from %u of them (%s).",
            r->committed, r->state);
    }
    if (r->exchanges > 1) {
        say(lines, "This is exchange %u of %u, %s.", r->exchange + 1, r->exchanges,
            r->exchange_name ? r->exchange_name : "?");
    }
}

json_t *fl_control_explain_document(struct fl_control_call *k, uint64_t wall_ms)
{
    struct fl_control_explain *x = &k->explain;
    json_t *lines = json_array();

    if (x->round) {
        say_all(lines, x, wall_ms);
    }
    return json_pack("{sO* so sO* si sO* si}", "round", x->round, "text", lines, "waiting_for",
                     x->waiting, "waiting_count", (int)x->waiting_count, "lost", x->lost,
                     "lost_count", (int)x->lost_count);
}
