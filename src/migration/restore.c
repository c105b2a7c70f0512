/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore: a machine out of a snapshot file.
 *
 * Lazily its RAM is a private mapping of the file or of a chain of them, and a thread verifies it
 * while the guest runs (and before that, to prefetch, touches what the guest will touch first);
 * eagerly all of it is read and verified before. Whatever comes to light afterwards (a chunk that
 * does not match, a page that can be read no more) reaches the machine's thread by an eventfd,
 * since the handler of SIGBUS may do no more than write there, and ends the machine.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "recorder.h"
#include "restore_map.h"
#include "vmrun/log.h"
#include "vmrun/migration.h"
#include "vmrun/snapfile.h"
#include "vmrun/thread.h"
#include "vmrun/working_set.h"

#define MAX_READERS 4 /* more of them only wait for the disk */

struct restore {
    struct restore_params params;
    const struct snapfile *file;
    struct machine *machine;
    struct guest_memory *memory;
    struct working_set working_set; /* to prefetch: the file's */
    struct recorder *recorder;

    pthread_t readers[MAX_READERS];
    unsigned reader_count;
    bool into_memory;          /* they fill RAM, or else only look */
    atomic_bool leave;         /* the readers end */
    atomic_uint_fast64_t next; /* the chunk that the next reader takes */
    pthread_mutex_t lock;
    struct error error; /* lock: the first that a reader met; code 0: none */

    int alarm_fd;
    struct loop_watch *alarm_watch;
    atomic_bool lost; /* a page of the file can be read no more */
    atomic_uint_fast64_t lost_gpa;
    bool guarded;
    struct sigaction bus_before;
};

/* For the handler of SIGBUS, which is given nothing. A process has one machine. */
static struct restore *_Atomic guarded;

/* Reading */

static void fail_with(struct restore *restore, const struct error *err)
{
    uint64_t one = 1;

    pthread_mutex_lock(&restore->lock);
    if (!restore->error.code)
        restore->error = *err;
    pthread_mutex_unlock(&restore->lock);
    atomic_store(&restore->leave, true);
    if (write(restore->alarm_fd, &one, sizeof(one)) < 0)
        log_error("restore: cannot tell the machine thread: %s", strerror(errno));
}

static void *read_chunks(void *opaque)
{
    struct restore *restore = opaque;
    uint64_t chunks = snapfile_chunks(restore->file), chunk, gpa, bytes;
    struct error err;

    if (restore->params.mode == RESTORE_PREFETCH)
        working_set_prefetch(&restore->working_set, restore->memory, &restore->leave);
    /* The guest goes first; when it idles, this is soon done. */
    if (!restore->into_memory)
        (void)setpriority(PRIO_PROCESS, 0, 10);
    while (!atomic_load(&restore->leave) && (chunk = restore->next++) < chunks) {
        void *into = NULL;

        if (restore->into_memory) {
            snapfile_chunk_range(restore->file, chunk, &gpa, &bytes);
            into = guest_memory_at(restore->memory, gpa, bytes);
        }
        if (snapfile_verify_chunk(restore->file, chunk, into, &err) < 0)
            fail_with(restore, &err);
    }
    return NULL;
}

/* At least one: fewer than wanted do it too. */
static int start_readers(struct restore *restore, unsigned count, bool into_memory,
                         struct error *err)
{
    struct error last;
    int r = 0;

    restore->into_memory = into_memory;
    restore->next = 0;
    while (r == 0 && restore->reader_count < count) {
        r = thread_start(&restore->readers[restore->reader_count], "verify", 0, read_chunks,
                         restore, &last);
        restore->reader_count += r == 0;
    }
    if (restore->reader_count)
        return 0;
    *err = last;
    return r;
}

static void join_readers(struct restore *restore)
{
    for (unsigned i = 0; i < restore->reader_count; i++)
        pthread_join(restore->readers[i], NULL);
    restore->reader_count = 0;
}

static int read_all(struct restore *restore, struct error *err)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = cpus < 1 ? 1 : cpus > MAX_READERS ? MAX_READERS : (unsigned)cpus;
    int r = start_readers(restore, count, true, err);

    if (r < 0)
        return r;
    join_readers(restore);
    if (restore->error.code)
        *err = restore->error;
    return -restore->error.code;
}

/* What comes to light later */

bool restore_file_was_cut(const struct restore *restore)
{
    const struct snapfile *file = restore->file;
    bool cut = false;
    struct stat st;

    for (; !cut && file; file = snapfile_base(file))
        cut =
            fstat(snapfile_fd(file), &st) == 0 && (uint64_t)st.st_size < snapfile_file_bytes(file);
    return cut;
}

static void take_alarm(void *opaque, uint32_t events)
{
    struct restore *restore = opaque;
    struct error err;
    uint64_t count;

    (void)events;
    if (read(restore->alarm_fd, &count, sizeof(count)) < 0)
        return;
    pthread_mutex_lock(&restore->lock);
    err = restore->error;
    pthread_mutex_unlock(&restore->lock);
    if (!err.code && atomic_load(&restore->lost))
        error_set(&err, EIO, "the snapshot's RAM at 0x%" PRIx64 " can be read no more",
                  (uint64_t)restore->lost_gpa);
    if (err.code && restore_file_was_cut(restore))
        error_prefix(&err, "the snapshot was cut off");
    if (err.code)
        machine_crash(restore->machine, err.msg);
}

/*
 * A page of the file is gone, and one of our threads is in the middle of touching it: give it
 * zeros, so that it gets out of there, and have the machine ended. Only system calls here.
 */
static void take_bus_error(int number, siginfo_t *info, void *context)
{
    struct restore *restore = guarded;
    uint8_t *at = info->si_addr;
    uint64_t one = 1;
    int code = errno;

    (void)number, (void)context;
    for (unsigned i = 0; restore && i < restore->memory->count; i++) {
        const struct memory_region *region = &restore->memory->regions[i];
        uint64_t offset = (uint64_t)(at - region->host) & ~(uint64_t)(GUEST_PAGE_SIZE - 1);

        if (at < region->host || offset >= region->size)
            continue;
        if (mmap(region->host + offset, GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
            break;
        restore->lost_gpa = region->gpa + offset;
        restore->lost = true;
        (void)!write(restore->alarm_fd, &one, sizeof(one));
        errno = code;
        return;
    }
    /* Not ours: it comes again, to whoever was here before. */
    sigaction(SIGBUS, restore ? &restore->bus_before : &(struct sigaction){.sa_handler = SIG_DFL},
              NULL);
    errno = code;
}

static void guard(struct restore *restore)
{
    struct sigaction action = {.sa_sigaction = take_bus_error, .sa_flags = SA_SIGINFO};

    guarded = restore;
    restore->guarded = sigaction(SIGBUS, &action, &restore->bus_before) == 0;
}

/* The machine */

static int check_memory(const struct restore *restore, struct error *err)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(restore->file, &regions);
    bool same = count == restore->memory->count;

    for (unsigned i = 0; same && i < count; i++)
        same = regions[i].gpa == restore->memory->regions[i].gpa &&
               regions[i].size == restore->memory->regions[i].size;
    return same ? 0
                : error_set(err, EPROTO,
                            "section 'memory': not the memory of the machine that "
                            "section 'machine' describes");
}

/* How long the guest's clock stood still. A host's clock that went back is none of its business. */
static uint64_t advance(void *opaque, uint64_t when_ns)
{
    const struct restore *restore = opaque;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    return restore->params.freeze || now_ns < when_ns ? 0 : now_ns - when_ns;
}

static int section(const struct restore *restore, const char *name, const void **ret_data,
                   size_t *ret_len, struct error *err)
{
    *ret_data = snapfile_section(restore->file, name, ret_len);
    return *ret_data ? 0 : error_set(err, EPROTO, "section '%s': missing", name);
}

/* RAM is as the file has it, mapped or read. */
static int provide_memory(struct restore *restore, struct error *err)
{
    const struct restore_params *params = &restore->params;
    int r = check_memory(restore, err);

    if (r < 0)
        return r;
    if (params->mode == RESTORE_EAGER)
        return read_all(restore, err);
    guard(restore);
    r = restore_map_younger(restore->memory, restore->file, RESTORE_MOST_MAPPINGS, err);
    if (r < 0)
        return r;
    if (params->mode == RESTORE_PREFETCH)
        return start_readers(restore, 1, false, err); /* as early as it can be */
    if (params->record_seconds == 0)
        return 0;
    return recorder_start(restore->memory, restore->file, params->record_path,
                          params->record_seconds, &restore->recorder, err);
}

/* Sections that nothing depends on, as far as this machine knows what to do with them. */
static void load_extras(const struct restore *restore)
{
    const char *name;
    const void *data;
    bool critical;
    uint64_t checksum;
    size_t len;

    for (unsigned i = 0;
         snapfile_section_at(restore->file, i, &name, &critical, &data, &len, &checksum); i++)
        if (!critical)
            (void)machine_load_extra(restore->machine, name, data, len);
}

static int build(struct restore *restore, const struct vm_config *config, struct loop *loop,
                 struct error *err)
{
    const struct snapfile *oldest = restore_oldest(restore->file);
    const struct snapfile_region *regions;
    struct machine_image image = {.ram_fd = -1};
    struct snapfile_parent parent;
    const void *state;
    size_t len;
    int r = section(restore, "state", &state, &len, err);

    if (r == 0)
        r = section(restore, "cpuid", &image.cpuid, &image.cpuid_len, err);
    if (r < 0)
        return r;
    if (snapfile_parent(oldest, &parent))
        return error_set(err, EPROTO, "%s: without the file that it builds on, %s",
                         snapfile_name(oldest), parent.name);
    if (restore->params.mode != RESTORE_EAGER) {
        image.ram_fd = snapfile_fd(oldest);
        for (unsigned i = 0; i < snapfile_regions(oldest, &regions); i++)
            image.ram_offset[i] = snapfile_ram_offset(oldest, i);
    }
    r = machine_create_from(config, loop, &image, &restore->machine, err);
    if (r < 0)
        return r;
    restore->memory = machine_memory(restore->machine);
    r = provide_memory(restore, err);
    if (r == 0)
        r = machine_load_state(restore->machine, state, len, advance, restore, err);
    if (r < 0)
        return r;
    load_extras(restore);
    return machine_tell_restored(restore->machine, err);
}

static int open_alarm(struct restore *restore, struct loop *loop, struct error *err)
{
    restore->alarm_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (restore->alarm_fd < 0)
        return error_errno(err, errno, "eventfd");
    return loop_watch_create(loop, restore->alarm_fd, EPOLLIN, NULL, take_alarm, restore,
                             &restore->alarm_watch, err);
}

int restore_machine(const struct restore_params *params, const struct snapfile *file,
                    const struct vm_config *config, struct loop *loop, struct restore **ret_restore,
                    struct machine **ret_machine, struct error *err)
{
    struct restore *restore = calloc(1, sizeof(*restore));
    int r;

    if (!restore)
        return error_set(err, ENOMEM, "out of memory");
    restore->params = *params;
    restore->file = file;
    restore->alarm_fd = -1;
    pthread_mutex_init(&restore->lock, NULL);
    r = open_alarm(restore, loop, err);
    if (r == 0 && params->mode == RESTORE_PREFETCH)
        r = working_set_find(file, &restore->working_set, err);
    if (r == 0)
        r = build(restore, config, loop, err);
    if (r == 0 && params->mode == RESTORE_LAZY)
        r = start_readers(restore, 1, false, err);
    if (r < 0)
        goto fail;
    *ret_machine = restore->machine;
    *ret_restore = restore;
    return 0;

fail:;
    struct machine *machine = restore->machine;

    restore_destroy(restore);
    machine_destroy(machine);
    return r;
}

static bool ended_by_itself(const struct restore *restore)
{
    enum machine_end end = machine_end(restore->machine, &(int){0});

    return end == MACHINE_END_POWEROFF || end == MACHINE_END_EXIT;
}

void restore_destroy(struct restore *restore)
{
    if (!restore)
        return;
    if (restore->recorder)
        recorder_stop(restore->recorder, ended_by_itself(restore));
    atomic_store(&restore->leave, true);
    join_readers(restore);
    loop_watch_destroy(restore->alarm_watch);
    if (restore->guarded)
        sigaction(SIGBUS, &restore->bus_before, NULL);
    guarded = NULL;
    if (restore->alarm_fd >= 0)
        close(restore->alarm_fd);
    pthread_mutex_destroy(&restore->lock);
    free(restore);
}
