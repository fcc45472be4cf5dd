/* Texts for people that cross the wire: short, valid UTF-8, no control characters (a peer must not
 * move the cursor of whoever reads the log). */
#ifndef FL_WIRE_TEXT_H
#define FL_WIRE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* At most max bytes, valid UTF-8 (shortest forms, no surrogates), no C0, C1 or DEL. */
bool fl_text_valid(const char *text, size_t max);
/* 1..max characters of letters, digits, '-', '_', '.', the first a letter or digit. */
bool fl_text_name(const char *text, size_t max);
/* min..max printable ASCII characters. */
bool fl_text_printable(const char *text, size_t min, size_t max);
/* Copies what is valid of `from` (NULL = ""), '?' for every other byte; cut before size bytes at a
 * character's edge, always terminated. */
void fl_text_clean(char *to, size_t size, const char *from);

#endif
