/* SPDX-License-Identifier: Apache-2.0 */
/* text: the small grammars that people type: sizes, numbers, and words with a slip in them. */
#include "vmrun/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int text_parse_uint(const char *text, uint64_t max, uint64_t *ret_value)
{
    int base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
    char *end;

    /* strtoull takes white space and signs, which are no part of this grammar. */
    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    if (*end || (base == 16 && end == text + 1))
        return -EINVAL;
    if (errno == ERANGE || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

int text_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    const char *unit = text + digits;
    unsigned shift = 0;

    if (digits == 0)
        return -EINVAL;
    if (*unit) {
        int letter = *unit >= 'a' && *unit <= 'z' ? *unit - ('a' - 'A') : *unit;
        const char *found = strchr(units, letter);

        if (!found)
            return -EINVAL;
        shift = 10 * (unsigned)(found - units + 1);
        if (unit[1] && strcmp(unit + 1, "B") != 0 && strcmp(unit + 1, "iB") != 0)
            return -EINVAL;
    }

    errno = 0;
    unsigned long long value = strtoull(text, NULL, 10);
    if (errno == ERANGE || value > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *ret_bytes = (uint64_t)value << shift;
    return 0;
}

int text_parse_mac(const char *text, uint8_t ret_mac[6])
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint8_t mac[6] = {0};

    for (unsigned i = 0; i < 17; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;

        if (i % 3 == 2 ? text[i] != ':' : !digit)
            return -EINVAL;
        if (digit)
            mac[i / 3] = (uint8_t)(mac[i / 3] << 4 | ((digit - digits) & 15));
    }
    if (text[17] || mac[0] & 1)
        return -EINVAL;
    memcpy(ret_mac, mac, sizeof(mac));
    return 0;
}

const char *text_format_size(uint64_t bytes, char *buf, size_t len)
{
    static const char units[] = "KMGT";
    unsigned unit = 0;

    while (unit < 4 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    if (unit)
        snprintf(buf, len, "%llu%c", (unsigned long long)bytes, units[unit - 1]);
    else
        snprintf(buf, len, "%llu", (unsigned long long)bytes);
    return buf;
}

const char *text_format_duration(uint64_t seconds, char *buf, size_t len)
{
    static const struct {
        uint64_t seconds;
        char name;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    unsigned i = 0;

    while (i < 3 && seconds < units[i].seconds)
        i++;
    uint64_t most = seconds / units[i].seconds;
    if (i == 3)
        snprintf(buf, len, "%llus", (unsigned long long)most);
    else
        snprintf(buf, len, "%llu%c %llu%c", (unsigned long long)most, units[i].name,
                 (unsigned long long)(seconds % units[i].seconds / units[i + 1].seconds),
                 units[i + 1].name);
    return buf;
}

#define NEAREST_MAX 32 /* longer words are nobody's slip of the finger */

/* Optimal string alignment: insertions, deletions, changes, and swaps of neighbours. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned d[NEAREST_MAX + 1][NEAREST_MAX + 1];

    for (size_t i = 0; i <= a_len; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= b_len; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[a_len][b_len];
}

const char *text_nearest(const char *word, const char *const *candidates)
{
    size_t len = strlen(word);
    const char *nearest = NULL;

    if (len == 0 || len > NEAREST_MAX)
        return NULL;
    unsigned best = (unsigned)(len / 3 > 1 ? len / 3 : 1) + 1;
    for (; *candidates; candidates++) {
        size_t candidate_len = strlen(*candidates);

        if (candidate_len > NEAREST_MAX)
            continue;
        unsigned d = distance(word, len, *candidates, candidate_len);
        if (d < best) {
            best = d;
            nearest = *candidates;
        }
    }
    return nearest;
}
