/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_DEVICES_CALENDAR_H
#define VMRUN_DEVICES_CALENDAR_H

/*
 * The Gregorian calendar, for clocks. Pure arithmetic: unlike gmtime(3) it opens
 * no time zone file and knows no errors.
 */

#include <stdint.h>

struct calendar_date {
    int year;         /* 0 to 9999 */
    unsigned month;   /* 1 to 12 */
    unsigned day;     /* 1 to 31 */
    unsigned weekday; /* 1 (Sunday) to 7 */
};

/* The date that lies so many days after 1970-01-01; years repeat after 9999 and before 0. */
struct calendar_date calendar_date(int64_t day);

/*
 * The reverse. year >= 0; a month out of range counts as the nearest that is not,
 * a day out of range is counted on: February 30th is March 1st or 2nd.
 */
int64_t calendar_day(int year, int month, int day);

#endif
