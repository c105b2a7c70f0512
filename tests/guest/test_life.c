/* SPDX-License-Identifier: Apache-2.0 */
/* VMs come and go without a trace, and what cannot be made is refused in words. */
#include "guest.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static unsigned entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static struct kvm_vm_params small_machine(struct guest *g, unsigned cpus, enum cpu_model model)
{
    return (struct kvm_vm_params){
        .cpus = cpus, .cpu_model = model, .memory = g->memory, .pio = g->pio, .mmio = g->mmio};
}

static void a_hundred_machines_leave_no_thread_and_no_descriptor(void **state)
{
    unsigned fds, threads;
    struct guest g;

    (void)state;
    guest_create(&g, "count", 1, false); /* whatever is made once is there from now on */
    guest_destroy(&g);
    fds = entries("/proc/self/fd");
    threads = entries("/proc/self/task");
    for (unsigned i = 0; i < 100; i++) {
        guest_create(&g, "count", 1 + i % 3, false);
        if (i % 2) {
            kvm_vm_resume(g.vm);
            guest_wait_accesses(&g, 1);
        }
        guest_destroy(&g);
    }
    assert_int_equal(entries("/proc/self/fd"), fds);
    assert_int_equal(entries("/proc/self/task"), threads);
}

static void threads_are_named_for_their_cpus(void **state)
{
    char path[300], name[16];
    bool found[2] = {false};
    struct dirent *entry;
    struct guest g;

    (void)state;
    guest_create(&g, "count", 2, false);
    DIR *dir = opendir("/proc/self/task");
    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
        FILE *comm = fopen(path, "r");
        if (comm && fgets(name, sizeof(name), comm)) {
            found[0] = found[0] || strcmp(name, "vcpu0\n") == 0;
            found[1] = found[1] || strcmp(name, "vcpu1\n") == 0;
        }
        if (comm)
            fclose(comm);
    }
    closedir(dir);
    assert_true(found[0] && found[1]);
    guest_destroy(&g);
}

static void a_number_of_cpus_out_of_range_is_refused_with_the_limit(void **state)
{
    struct kvm_vm *vm = NULL;
    char limit[32];
    struct error err;
    unsigned max;
    struct guest g;

    (void)state;
    guest_create(&g, "count", 1, false);
    assert_int_equal(kvm_max_cpus(&max, &err), 0);
    snprintf(limit, sizeof(limit), "1 to %u", max);

    struct kvm_vm_params params = small_machine(&g, max + 1, CPU_MODEL_HOST);
    assert_int_equal(kvm_vm_create(&params, &vm, &err), -EINVAL);
    assert_non_null(strstr(err.msg, limit));
    params.cpus = 0;
    assert_int_equal(kvm_vm_create(&params, &vm, &err), -EINVAL);
    assert_null(vm);
    guest_destroy(&g);
}

/* Both answers are right, by host; a silent third is not. */
static void a_named_model_is_given_or_refused_with_what_lacks(void **state)
{
    const enum cpu_model models[] = {CPU_MODEL_X86_64_V2, CPU_MODEL_X86_64_V3};
    const char *const names[] = {"x86-64-v2", "x86-64-v3"};
    struct guest g;

    (void)state;
    guest_create(&g, "count", 1, false);
    for (unsigned i = 0; i < 2; i++) {
        struct kvm_vm_params params = small_machine(&g, 2, models[i]);
        struct kvm_vm *vm = NULL;
        struct error err = {0};
        int r = kvm_vm_create(&params, &vm, &err);

        if (r == 0) {
            assert_non_null(vm);
        } else {
            assert_int_equal(r, -ENOTSUP);
            assert_non_null(strstr(err.msg, names[i]));
            assert_non_null(strstr(err.msg, "its KVM lacks "));
            assert_null(vm);
        }
        kvm_vm_destroy(vm);
    }
    guest_destroy(&g);
}

static void the_host_is_examined_and_its_speed_measured(void **state)
{
    struct kvm_report report;
    bool speed = false;

    (void)state;
    kvm_examine_host(&report);
    assert_true(report.usable);
    assert_in_range(report.max_cpus, 1, 255);
    assert_true(report.ring0_ns > 0);
    assert_in_range(report.count, 5, sizeof(report.findings) / sizeof(report.findings[0]));
    for (unsigned i = 0; i < report.count; i++) {
        assert_true(report.findings[i].text[0] != '\0');
        if (strcmp(report.findings[i].key, "speed") == 0) {
            speed = true;
            assert_int_equal(report.findings[i].verdict, report.native ? KVM_OK : KVM_FAIL);
        }
    }
    assert_true(speed);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_machines_leave_no_thread_and_no_descriptor),
        cmocka_unit_test(threads_are_named_for_their_cpus),
        cmocka_unit_test(a_number_of_cpus_out_of_range_is_refused_with_the_limit),
        cmocka_unit_test(a_named_model_is_given_or_refused_with_what_lacks),
        cmocka_unit_test(the_host_is_examined_and_its_speed_measured),
    };
    return cmocka_run_group_tests_name("life", tests, NULL, NULL);
}

int main(void)
{
    return guest_main(run);
}
