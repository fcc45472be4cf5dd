/*
 * Tables and quantities for people. Text from a daemon or a certificate is stripped of what a
 * terminal could take for a command.
 */
#ifndef SERVER_CTL_TABLE_H
#define SERVER_CTL_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { FL_TABLE_COLUMNS_MAX = 10, FL_TABLE_CELL_MAX = 96 };

struct fl_table;

/* `heads` ends with NULL; one that begins with '>' is for numbers, set to the right. */
struct fl_table *fl_table_new(const char *const *heads);
/* The next cell, from left to right; a row begins after the last one. */
void fl_table_add(struct fl_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees it. Heads alone are not printed; then `empty` is. */
void fl_table_print(struct fl_table *t, FILE *to, const char *empty);

enum { FL_TEXT_MAX = 40 };
/* "1.4 MiB" */
const char *fl_text_bytes(uint64_t bytes, char ret[FL_TEXT_MAX]);
/* "12 s", "3 min", "5 h", "2 d" */
const char *fl_text_span(uint64_t ms, char ret[FL_TEXT_MAX]);
/* "3 min ago", "in 12 s"; "-" for 0 */
const char *fl_text_when(uint64_t at_ms, uint64_t now_ms, char ret[FL_TEXT_MAX]);
/* "2027-11-24"; "-" for 0 */
const char *fl_text_date(int64_t seconds, char ret[FL_TEXT_MAX]);
/* Replaces control characters in place. */
void fl_text_clean(char *text);
uint64_t fl_wall_ms(void);

#endif
