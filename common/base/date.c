#include "common/base/date.h"

#include <string.h>

/* Digits exactly; moves on. */
static bool digits(const char **s, unsigned count, unsigned *ret)
{
    unsigned x = 0;

    for (unsigned i = 0; i < count; i++, (*s)++) {
        if (**s < '0' || **s > '9') {
            return false;
        }
        x = 10 * x + (unsigned)(**s - '0');
    }
    *ret = x;
    return true;
}

static bool skip(const char **s, char c)
{
    if (**s != c) {
        return false;
    }
    (*s)++;
    return true;
}

static bool leap(int y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Days of the years before y, since year 1. */
static int64_t days_before(int y)
{
    int64_t n = y - 1;
    return 365 * n + n / 4 - n / 100 + n / 400;
}

static bool parse_time(const char *s, struct fl_date *d)
{
    if (*s == 0) {
        return true;
    }
    if (!skip(&s, ' ') && !skip(&s, 'T')) {
        return false;
    }
    if (!digits(&s, 2, &d->hour) || !skip(&s, ':') || !digits(&s, 2, &d->minute)) {
        return false;
    }
    if (skip(&s, ':')) {
        if (!digits(&s, 2, &d->second)) {
            return false;
        }
        if (skip(&s, '.')) {
            s += strspn(s, "0123456789");
        }
    }
    skip(&s, 'Z');
    return *s == 0 && d->hour < 24 && d->minute < 60 && d->second < 60;
}

bool fl_date_parse(const char *text, struct fl_date *ret)
{
    static const unsigned char lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct fl_date d = {0};
    unsigned year;
    const char *s = text;

    if (!digits(&s, 4, &year) || !skip(&s, '-') || !digits(&s, 2, &d.month) || !skip(&s, '-') ||
        !digits(&s, 2, &d.day) || !parse_time(s, &d)) {
        return false;
    }
    d.year = (int)year;
    if (year == 0 || d.month < 1 || d.month > 12 || d.day < 1 ||
        d.day > lengths[d.month - 1] + (unsigned)(d.month == 2 && leap(d.year))) {
        return false;
    }
    for (unsigned m = 1; m < d.month; m++) {
        d.yearday += lengths[m - 1] + (unsigned)(m == 2 && leap(d.year));
    }
    d.yearday += d.day - 1;
    int64_t since = days_before(d.year) + d.yearday; /* 0001-01-01, a Monday, is 0 */
    d.weekday = (unsigned)(since % 7);
    d.days = (double)(since - days_before(1970)) +
             (d.hour * 3600.0 + d.minute * 60.0 + d.second) / 86400;
    *ret = d;
    return true;
}
