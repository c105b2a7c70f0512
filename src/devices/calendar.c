/* SPDX-License-Identifier: Apache-2.0 */
/* calendar: days since 1970 to dates and back. Inside, days are counted from 0000-01-01. */
#include "calendar.h"

#include <stdbool.h>

#define DAY_OF_1970 719528
#define DAYS_IN_10000_YEARS 3652425 /* a whole number of weeks, so weekdays repeat too */

static int64_t days_before_year(int64_t year)
{
    return 365 * year + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
}

/* month: 0 is January, 12 the whole year. */
static int days_before_month(int64_t year, int month)
{
    static const int days[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month] + (leap && month >= 2);
}

struct calendar_date calendar_date(int64_t day)
{
    int64_t year;
    unsigned weekday;
    int month = 0;

    day = (day + DAY_OF_1970) % DAYS_IN_10000_YEARS;
    day = day < 0 ? day + DAYS_IN_10000_YEARS : day;
    weekday = (unsigned)((day + 6) % 7) + 1; /* 0000-01-01 is a Saturday */

    year = day / 366; /* a few years too early */
    while (days_before_year(year + 1) <= day)
        year++;
    day -= days_before_year(year);
    while (days_before_month(year, month + 1) <= day)
        month++;
    day -= days_before_month(year, month);

    return (struct calendar_date){
        .year = (int)year,
        .month = (unsigned)month + 1,
        .day = (unsigned)day + 1,
        .weekday = weekday,
    };
}

int64_t calendar_day(int year, int month, int day)
{
    month = month < 1 ? 1 : month > 12 ? 12 : month;
    return days_before_year(year) + days_before_month(year, month - 1) + day - 1 - DAY_OF_1970;
}
