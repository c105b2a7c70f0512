/* SPDX-License-Identifier: Apache-2.0 */
/* quote: text of unknown origin, judged and made fit for a message of one line. */
#include "quote.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SHOWN_MAX 64  /* of QUOTE_SIZE: leaves room for one escape, quotes and dots */
#define ESCAPE_MAX 12 /* "\u2028" or four bytes of UTF-8 */

/*
 * The code point at *text and its length in bytes; 0 where it is not UTF-8
 * (Unicode, "Well-Formed UTF-8 Byte Sequences"). The final NUL ends a cut
 * sequence: it is no continuation byte.
 */
static unsigned decode(const unsigned char *text, uint32_t *ret_point)
{
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    for (unsigned i = 0; i < 4; i++) {
        if ((text[0] & forms[i].mask) != forms[i].lead)
            continue;
        uint32_t point = text[0] & (uint32_t)(unsigned char)~forms[i].mask;

        for (unsigned n = 1; n <= i; n++) {
            if ((text[n] & 0xc0) != 0x80)
                return 0;
            point = point << 6 | (text[n] & 0x3f);
        }
        if (point < forms[i].least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return 0;
        *ret_point = point;
        return i + 1;
    }
    return 0;
}

/* Control characters, and those that end a line or turn its direction. */
static bool is_control(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point <= 0x9f) ||
           (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

enum config_text config_text_check(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    while (*at) {
        uint32_t point;
        unsigned len = decode(at, &point);

        if (len == 0)
            return CONFIG_TEXT_NOT_UTF8;
        if (is_control(point))
            return CONFIG_TEXT_CONTROL;
        at += len;
    }
    return CONFIG_TEXT_PRINTABLE;
}

static const char *escape(const char *text, bool quotes, char *buf)
{
    const unsigned char *at = (const unsigned char *)text;
    char *out = buf;

    if (quotes)
        *out++ = '"';
    while (*at && out - buf < SHOWN_MAX) {
        uint32_t point;
        unsigned len = decode(at, &point);

        if (len == 0)
            out += snprintf(out, ESCAPE_MAX, "\\x%02x", *at++);
        else if (is_control(point))
            out += snprintf(out, ESCAPE_MAX, "\\u%04x", (unsigned)point);
        else if (quotes && (point == '"' || point == '\\'))
            out += snprintf(out, ESCAPE_MAX, "\\%c", (char)point);
        else
            out += snprintf(out, ESCAPE_MAX, "%.*s", (int)len, (const char *)at);
        at += len;
    }
    if (*at) {
        memcpy(out, "...", 3);
        out += 3;
    }
    if (quotes)
        *out++ = '"';
    *out = '\0';
    return buf;
}

const char *config_quote(const char *text, char buf[QUOTE_SIZE])
{
    return escape(text, true, buf);
}

const char *config_escape(const char *text, char buf[QUOTE_SIZE])
{
    return escape(text, false, buf);
}
