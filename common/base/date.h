/*
 * Dates as tables write them: ISO 8601 in the proleptic Gregorian calendar, without time zones,
 * since a table's times are local to what it is about.
 */
#ifndef FL_BASE_DATE_H
#define FL_BASE_DATE_H

#include <stdbool.h>
#include <stdint.h>

struct fl_date {
    int year;                      /* 1..9999 */
    unsigned month, day;           /* from 1 */
    unsigned hour, minute, second; /* a leap second is refused */
    unsigned weekday;              /* 0 = Monday */
    unsigned yearday;              /* from 0 */
    double days;                   /* since 1970-01-01 00:00, with the time as a fraction */
};

/* YYYY-MM-DD, then optionally a space or T and HH:MM or HH:MM:SS (a fraction of a second is
 * ignored) and Z. False when it is not one, and for a day that does not exist. */
bool fl_date_parse(const char *text, struct fl_date *ret);

#endif
