/* SPDX-License-Identifier: Apache-2.0 */
#include "pci_bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "vmrun/log.h"

struct pci_bench bench;

int pci_bench_setup(void **state)
{
    (void)state;
    memset(&bench, 0, sizeof(bench));
    log_set_level(LOG_LEVEL_ERROR);
    fake_platform_init(&bench.fake);
    if (fake_host_create(&bench.fake.platform, &bench.host, &bench.err) < 0 ||
        fake_function_create(&bench.fake.platform, bench.host, BENCH_SLOT, &bench.dev, &bench.err) <
            0)
        return -1;
    bench.fun = fake_function_of(bench.dev);
    return 0;
}

int pci_bench_teardown(void **state)
{
    (void)state;
    device_destroy(bench.other);
    device_destroy(bench.dev);
    device_destroy(bench.host);
    assert_int_equal(bench.fake.map_count, 0);
    assert_int_equal(bench.fake.msi_count, 0);
    return 0;
}

struct fake_function *bench_plug(int slot)
{
    assert_int_equal(
        fake_function_create(&bench.fake.platform, bench.host, slot, &bench.other, &bench.err), 0);
    return fake_function_of(bench.other);
}

uint32_t bench_get(unsigned offset, unsigned size)
{
    return (uint32_t)fake_config_read(&bench.fake, BENCH_SLOT, offset, size);
}

void bench_set(unsigned offset, unsigned size, uint32_t value)
{
    fake_config_write(&bench.fake, BENCH_SLOT, offset, size, value);
}

bool bench_is_mapped(uint64_t address)
{
    return fake_is_mapped(&bench.fake, BUS_MMIO, address, 4);
}
