/* SPDX-License-Identifier: Apache-2.0 */
/* vmrun doctor: what kvm_examine_host() found, with the cures. */
#include "verbs.h"
#include "vmrun/kvm.h"

static const char *const verdicts[] = {[KVM_OK] = "ok", [KVM_WARN] = "warn", [KVM_FAIL] = "FAIL"};

/* The first thing that stands in the way, or "". */
static const char *why_not(const struct kvm_report *report)
{
    for (unsigned i = 0; i < report->count; i++)
        if (report->findings[i].verdict == KVM_FAIL)
            return report->findings[i].text;
    return "";
}

static void print_json(const struct kvm_report *report)
{
    json_t *findings = json_array();

    for (unsigned i = 0; i < report->count; i++) {
        const struct kvm_finding *f = &report->findings[i];
        json_array_append_new(findings,
                              json_pack("{s:s, s:s, s:s, s:s}", "key", f->key, "verdict",
                                        f->verdict == KVM_FAIL ? "fail" : verdicts[f->verdict],
                                        "text", f->text, "cure", f->cure));
    }
    cli_print_json(json_pack("{s:b, s:b, s:s, s:i, s:f, s:o}", "usable", report->usable, "native",
                             report->native, "why", why_not(report), "max_cpus",
                             (int)report->max_cpus, "ring0_ns", report->ring0_ns, "findings",
                             findings));
}

static void print_text(const struct kvm_report *report)
{
    const struct cli_colours c = cli_colours(stdout);
    const char *const colours[] = {[KVM_OK] = c.good, [KVM_WARN] = c.warn, [KVM_FAIL] = c.bad};

    for (unsigned i = 0; i < report->count; i++) {
        const struct kvm_finding *f = &report->findings[i];
        printf("%s%-4s%s  %s\n", colours[f->verdict], verdicts[f->verdict], c.off, f->text);
        if (*f->cure)
            printf("      %s\n", f->cure);
    }
    if (report->usable && report->native)
        printf("Machines run here at native speed.\n");
    else if (report->usable)
        printf("Machines can be made here, but the guest's kernel does not run at native speed.\n");
    else
        printf("Machines cannot be run here.\n");
}

int cli_doctor(const struct cli_args *args, struct error *err)
{
    struct kvm_report report = {0};

    (void)err;
    kvm_examine_host(&report);
    if (cli_has(args, "--json"))
        print_json(&report);
    else
        print_text(&report);
    return report.usable && report.native ? CLI_OK : CLI_FAILED;
}
