/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc-khz: the frequency of this machine's time-stamp counter in kHz, measured against its clock.
 *
 * Both are read again and again at either end, and the pair counts that took least time: so a
 * machine that has no time for us does no harm.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct reading {
    uint64_t tsc, ns;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct reading take_reading(void)
{
    struct reading best = {0};
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < 1000; i++) {
        uint64_t before = __rdtsc(), ns = now_ns(), after = __rdtsc();

        if (after - before < least) {
            least = after - before;
            best = (struct reading){.tsc = before + least / 2, .ns = ns};
        }
    }
    return best;
}

int main(void)
{
    const struct timespec wait = {.tv_nsec = 100000000};
    struct reading first = take_reading(), last;

    nanosleep(&wait, NULL);
    last = take_reading();
    printf("%.0f\n", (double)(last.tsc - first.tsc) * 1e6 / (double)(last.ns - first.ns));
    return 0;
}
