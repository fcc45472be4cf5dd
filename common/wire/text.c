#include "common/wire/text.h"

#include <stdint.h>
#include <string.h>

/* The length of the valid, printable character at p (0 at the end of the string is not asked for):
 * 1..4, or 0 when the byte does not begin one. Reads no byte behind a terminating zero. */
static size_t character(const unsigned char *p)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (n == 1) {
        return p[0] >= 0x20 && p[0] != 0x7f;
    }
    if (n == 0 || p[0] > 0xf4) {
        return 0;
    }
    uint32_t code = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (p[i] & 0x3fu);
    }
    bool good = code >= least[n] && code <= 0x10ffff && code >= 0xa0 &&
                !(code >= 0xd800 && code <= 0xdfff) && code != 0x2028 && code != 0x2029;
    return good ? n : 0;
}

bool fl_text_valid(const char *text, size_t max)
{
    const unsigned char *p = (const unsigned char *)text;

    if (strnlen(text, max + 1) > max) {
        return false;
    }
    while (*p) {
        size_t n = character(p);
        if (n == 0) {
            return false;
        }
        p += n;
    }
    return true;
}

static bool letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool fl_text_name(const char *text, size_t max)
{
    size_t n = strnlen(text, max + 1);

    if (n == 0 || n > max || !letter_or_digit(text[0])) {
        return false;
    }
    for (size_t i = 1; i < n; i++) {
        if (!letter_or_digit(text[i]) && !strchr("-_.", text[i])) {
            return false;
        }
    }
    return true;
}

bool fl_text_printable(const char *text, size_t min, size_t max)
{
    size_t n = strnlen(text, max + 1);

    if (n < min || n > max) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return true;
}

void fl_text_clean(char *to, size_t size, const char *from)
{
    const unsigned char *p = (const unsigned char *)(from ? from : "");
    size_t at = 0;

    while (*p) {
        size_t n = character(p);
        if (at + (n ? n : 1) >= size) {
            break;
        }
        if (n) {
            memcpy(to + at, p, n);
        } else {
            to[at] = '?';
            n = 1;
        }
        at += n;
        p += n;
    }
    to[at] = 0;
}
