/*
 * `watch`: on a terminal a few lines that are drawn over, again every second so that the deadline
 * counts down; elsewhere one line per change of a round, for logs.
 */
#include "server/ctl/cli.h"
#include "server/ctl/table.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 30, TICK_MS = 1000 };

struct screen {
    bool terminal, json;
    int lines;    /* drawn last time */
    json_t *last; /* the newest document */
    json_t *said; /* job -> line, when there is no terminal */
};

/* "######|---........": # committed, - uploading, | the quorum */
static void bar(const json_t *r, char ret[BAR + 2])
{
    int64_t wanted = fl_cli_int(r, "wanted"), committed = fl_cli_int(r, "committed"),
            uploading = fl_cli_int(r, "uploading"), quorum = fl_cli_int(r, "quorum");
    int n = 0;

    wanted = wanted < 1 ? 1 : wanted;
    for (int i = 0; i < BAR; i++) {
        int64_t at = (2 * i + 1) * wanted; /* the middle of this place, in 2 BAR-ths of a member */
        if (quorum > 0 && quorum < wanted && i == (int)(quorum * BAR / wanted)) {
            ret[n++] = '|';
        } else {
            ret[n++] = at < 2 * BAR * committed                 ? '#'
                       : at < 2 * BAR * (committed + uploading) ? '-'
                                                                : '.';
        }
    }
    ret[n] = 0;
}

static void draw_job(struct screen *s, const json_t *j)
{
    const json_t *r = json_object_get(j, "now");
    char line[200], cells[BAR + 2], t[FL_TEXT_MAX], u[FL_TEXT_MAX], v[FL_TEXT_MAX];

    snprintf(line, sizeof line, "%s  %s  %lld of %lld rounds published%s%s", fl_cli_text(j, "job"),
             fl_cli_text(j, "state"), (long long)fl_cli_int(j, "round"),
             (long long)fl_cli_int(j, "rounds"), fl_cli_text(j, "why")[0] ? ": " : "",
             fl_cli_text(j, "why"));
    fl_text_clean(line);
    printf("%s\033[K\n", line);
    s->lines++;
    if (!json_is_object(r)) {
        return;
    }
    bar(r, cells);
    printf("  round %lld  [%s] %lld/%lld, quorum %lld, %lld lost, %s%s%s\033[K\n",
           (long long)fl_cli_int(r, "round"), cells, (long long)fl_cli_int(r, "committed"),
           (long long)fl_cli_int(r, "wanted"), (long long)fl_cli_int(r, "quorum"),
           (long long)fl_cli_int(r, "lost"), fl_cli_text(r, "state"),
           fl_cli_int(r, "deadline_ms") ? ", deadline " : "",
           fl_cli_int(r, "deadline_ms")
               ? fl_text_when((uint64_t)fl_cli_int(r, "deadline_ms"), fl_wall_ms(), t)
               : "");
    printf("  up %s of %s, down %s\033[K\n", fl_text_bytes((uint64_t)fl_cli_int(r, "bytes_up"), t),
           fl_text_bytes((uint64_t)fl_cli_int(r, "bytes_up_expected"), u),
           fl_text_bytes((uint64_t)fl_cli_int(r, "bytes_down"), v));
    s->lines += 2;
}

static void draw(struct screen *s)
{
    const json_t *o = s->last, *j;
    char t[FL_TEXT_MAX], u[FL_TEXT_MAX];
    size_t i;

    if (s->lines) {
        printf("\033[%dA", s->lines);
    }
    s->lines = 0;
    json_array_foreach(json_object_get(o, "jobs"), i, j)
    {
        draw_job(s, j);
    }
    printf("%lld of %lld agents connected, %s in, %s out%s\033[K\n\033[J",
           (long long)fl_cli_int(o, "agents_connected"),
           (long long)fl_cli_int(o, "agents_enrolled"),
           fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_in"), t),
           fl_text_bytes((uint64_t)fl_cli_int(o, "bytes_out"), u), i ? "" : "; no job is running");
    s->lines++;
    fflush(stdout);
}

/* What is worth a line in a log: not bytes, not seconds. */
static void say(struct screen *s)
{
    const json_t *j;
    char line[300];
    size_t i;

    json_array_foreach(json_object_get(s->last, "jobs"), i, j)
    {
        const json_t *r = json_object_get(j, "now");
        int n = snprintf(line, sizeof line, "%s %s %lld/%lld", fl_cli_text(j, "job"),
                         fl_cli_text(j, "state"), (long long)fl_cli_int(j, "round"),
                         (long long)fl_cli_int(j, "rounds"));
        if (json_is_object(r)) {
            snprintf(line + n, sizeof line - (size_t)n,
                     " round %lld %s committed %lld/%lld quorum %lld lost %lld attempt %lld",
                     (long long)fl_cli_int(r, "round"), fl_cli_text(r, "state"),
                     (long long)fl_cli_int(r, "committed"), (long long)fl_cli_int(r, "wanted"),
                     (long long)fl_cli_int(r, "quorum"), (long long)fl_cli_int(r, "lost"),
                     (long long)fl_cli_int(r, "attempt") + 1);
        } else if (fl_cli_text(j, "why")[0]) {
            snprintf(line + n, sizeof line - (size_t)n, ": %s", fl_cli_text(j, "why"));
        }
        fl_text_clean(line);
        if (strcmp(fl_cli_text(s->said, fl_cli_text(j, "job")), line) != 0) {
            json_object_set_new(s->said, fl_cli_text(j, "job"), json_string(line));
            printf("%s\n", line);
            fflush(stdout);
        }
    }
}

static int on_part(void *arg, const struct fl_ctl_answer *part)
{
    struct screen *s = arg;

    if (part && part->kind == FL_CTL_JSON) {
        if (s->json) {
            printf("%s\n", part->text);
            return fflush(stdout) == 0 ? 0 : -FL_R_CANCELLED;
        }
        json_decref(s->last);
        s->last = json_loads(part->text, 0, NULL);
    }
    if (s->last && s->terminal) {
        draw(s);
    } else if (s->last && part) {
        say(s);
    }
    return ferror(stdout) ? -FL_R_CANCELLED : 0; /* the reader of a pipe has gone */
}

int fl_cli_watch(struct fl_cli *c)
{
    struct fl_ctl_request q = {.verb = "watch"};
    struct screen s = {.json = c->json, .said = json_object()};

    s.terminal = !c->json && isatty(STDOUT_FILENO);
    fl_cli_argument(&q, "job", c->word_count ? c->words[0] : NULL);
    int status = fl_ctl_ask_ticking(c->socket, &q, c->timeout_ms, s.terminal ? TICK_MS : 0, on_part,
                                    &s, &c->err);
    json_decref(s.last);
    json_decref(s.said);
    return status == -FL_R_CANCELLED ? 0 : status;
}
