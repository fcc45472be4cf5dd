/*
 * The table of reference values for privacy accounting, in $COHORT_REFERENCE, else
 * ../shared/reference beside the source, else the copy in tests/golden. For tests that include
 * Check and know TEST_SOURCE_ROOT.
 */
#ifndef TESTS_LIB_DP_TABLE_H
#define TESTS_LIB_DP_TABLE_H

#include "common/base/mem.h"
#include "common/privacy/event.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 40, ROWS = 400, EVENTS = 16 };

static char *header[COLUMNS], *cells[ROWS][COLUMNS];
static uint32_t columns, table_rows;

/* Cells in quotes may hold commas. */
static uint32_t split(char *line, char **ret)
{
    uint32_t n = 0;

    line[strcspn(line, "\r\n")] = 0;
    for (char *at = line; at && n < COLUMNS; n++) {
        if (*at == '"') {
            ret[n] = ++at;
            at += strcspn(at, "\"");
            *at++ = 0;
            strsep(&at, ",");
        } else {
            ret[n] = strsep(&at, ",");
        }
    }
    return n;
}

static FILE *open_table(void)
{
    const char *folder = getenv("COHORT_REFERENCE");
    const char *places[] = {folder ? folder : TEST_SOURCE_ROOT "/../shared/reference",
                            TEST_SOURCE_ROOT "/tests/golden"};
    char path[1024];

    for (size_t i = 0; i < FL_COUNT(places); i++) {
        snprintf(path, sizeof path, "%s/dp_accounting.csv", places[i]);
        FILE *f = fopen(path, "r");
        if (f) {
            return f;
        }
    }
    ck_abort_msg("no table of reference values");
    return NULL;
}

static void load(void)
{
    static char text[1 << 20];
    FILE *f;
    size_t size;

    if (table_rows) {
        return;
    }
    f = open_table();
    size = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[size] = 0;
    char *at = text;
    columns = split(strsep(&at, "\n"), header);
    for (char *line; (line = strsep(&at, "\n")) != NULL && table_rows < ROWS;) {
        if (*line) {
            ck_assert_uint_eq(split(line, cells[table_rows++]), columns);
        }
    }
    ck_assert_uint_ge(table_rows, 100);
}

static const char *cell(uint32_t row, const char *name)
{
    for (uint32_t i = 0; i < columns; i++) {
        if (strcmp(header[i], name) == 0) {
            return cells[row][i];
        }
    }
    ck_abort_msg("the table has no column %s", name);
    return "";
}

/* NaN where the cell is empty. */
static double value(uint32_t row, const char *name)
{
    const char *text = cell(row, name);
    return *text ? strtod(text, NULL) : NAN;
}

static bool is_kind(uint32_t row, const char *kind)
{
    return strcmp(cell(row, "kind"), kind) == 0;
}

__attribute__((unused)) static uint32_t events_of(uint32_t row, struct fl_event *ret)
{
    const char *relation = cell(row, "relation");
    struct fl_err e = {0};
    uint32_t n = 0;
    int r = fl_events_parse(cell(row, "event"),
                            strcmp(relation, "REPLACE_ONE") == 0 ? FL_RELATION_REPLACE
                                                                 : FL_RELATION_ADD_REMOVE,
                            ret, EVENTS, &n, &e);
    ck_assert_msg(r == 0, "%s: %s", cell(row, "id"), e.msg);
    return n;
}

#define ck_relative(id, got, want, tolerance)                                                      \
    ck_assert_msg(fabs((got) / (want)-1) <= (tolerance), "%s: got %.17g, want %.17g", id,          \
                  (double)(got), (double)(want))

#endif
