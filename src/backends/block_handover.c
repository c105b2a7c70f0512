/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_handover: who has the images of a machine that moves.
 *
 * The one thing to know: a target that has taken the arbiter and dies gives it up by that. So it
 * sets the time of that image before it runs, and a source that gets the arbiter and finds the
 * time that it had set itself knows that nobody ran the machine, written or not.
 *
 * Over a network, a file's size and times are believed only after a lock of it was taken: that is
 * when caches are looked through again.
 */
#include "vmrun/block_handover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "block_image.h"
#include "block_lock.h"
#include "vmrun/log.h"

/* Behind all bytes that QEMU knows and every image ends before; 128 to a session. */
#define PLACE_BASE ((uint64_t)1 << 62)
#define PLACE_BYTES 128
#define ARBITER 0
#define MARK(disk) (1 + (disk))
#define PROMISE 127 /* of who has the arbiter: it has the images as well, and runs the machine */

/* No clock of a file system that has finer ones is likely to say this, and no coarser one does. */
#define STAMP_NS 345678901

static off_t place(const struct block_handover *set, unsigned slot)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (unsigned i = 0; i < HANDOVER_SESSION_BYTES; i++)
        hash = (hash ^ set->session[i]) * UINT64_C(0x100000001b3);
    return (off_t)(PLACE_BASE + hash % (PLACE_BASE / PLACE_BYTES) * PLACE_BYTES + slot);
}

/* The image of a disk that is written, or NULL. */
static struct block_image *written(const struct block_handover *set, unsigned disk)
{
    struct block_image *image = block_image_of(set->disks[disk].block);

    return image->read_only ? NULL : image;
}

/* The one that has the arbiter, or NULL. */
static struct block_image *first_written(const struct block_handover *set)
{
    struct block_image *image = NULL;

    for (unsigned i = 0; !image && i < set->count; i++)
        image = written(set, i);
    return image;
}

static int name_disk(const struct block_handover *set, unsigned disk, struct error *err)
{
    return error_prefix(err, "disk %s: %s", set->disks[disk].id, set->disks[disk].path);
}

static int has_no_locks(int code, struct error *err)
{
    return error_set(err, ENOLCK,
                     "its file system has no locks (%s), and without them two hosts "
                     "could write it",
                     strerror(code));
}

static void unlock_images(const struct block_handover *set)
{
    for (unsigned i = 0; i < set->count; i++)
        if (written(set, i))
            block_image_unlock(written(set, i));
}

void block_handover_unmark(const struct block_handover *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        const struct block_image *image = written(set, i);

        if (image)
            block_unlock_bytes(image->fd, place(set, MARK(i)), 1);
    }
}

int block_handover_mark(const struct block_handover *set, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < set->count; i++) {
        const struct block_image *image = written(set, i);

        r = image ? block_lock_byte(image->fd, place(set, MARK(i)), false) : 0;
        if (r < 0) {
            has_no_locks(-r, err);
            name_disk(set, i, err);
        }
    }
    if (r == 0)
        return 0;
    block_handover_unmark(set);
    return -err->code;
}

static int check_disk(const struct block_image *image, off_t mark, struct error *err)
{
    int r = block_lock_byte(image->fd, mark, false); /* does it have locks at all? */

    if (r < 0)
        return has_no_locks(-r, err);
    bool marked = block_is_byte_locked(image->fd, mark);

    block_unlock_bytes(image->fd, mark, 1);
    if (marked)
        return 0;
    if (block_is_written_by_another(image->fd))
        return error_set(err, ENOTUNIQ,
                         "not the image that the machine has: another machine writes it; put the "
                         "same file there, or name it with --set");
    return error_set(err, ENOLCK,
                     "not the image that the machine has, or the locks of its file system do not "
                     "reach this host; both hosts need the same file, on NFS mounted without "
                     "nolock and local_lock");
}

int block_handover_check(const struct block_handover *set, struct error *err)
{
    for (unsigned i = 0; i < set->count; i++) {
        const struct block_image *image = written(set, i);

        if (image && check_disk(image, place(set, MARK(i)), err) < 0)
            return name_disk(set, i, err);
    }
    return 0;
}

/* As the server has it, whatever is cached here. */
static int get_time(const struct block_image *image, struct timespec *ret_time)
{
    struct statx st;

    if (statx(image->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_MTIME, &st) < 0)
        return -errno;
    *ret_time = (struct timespec){.tv_sec = st.stx_mtime.tv_sec, .tv_nsec = st.stx_mtime.tv_nsec};
    return 0;
}

static int set_time(const struct block_image *image, const struct timespec *time)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, *time};

    return futimens(image->fd, times) < 0 ? -errno : 0;
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * In the past by more than the coarsest clock of a file system ticks, which is FAT's. Only an
 * owner may set a time: without it the images can be passed on, but not come back by themselves.
 */
static int stamp(struct block_image *image)
{
    struct timespec time;
    int r = get_time(image, &image->time_before);

    if (r < 0)
        return r;
    time = image->time_before;
    time.tv_nsec = STAMP_NS;
    if (time.tv_sec > 2)
        time.tv_sec -= 3;
    r = set_time(image, &time);
    return r < 0 ? r : get_time(image, &image->stamp);
}

/* Of all that are written, in their order; 0: they cannot be told. Over a network: locked before.
 */
static uint64_t sum_of_times(const struct block_handover *set)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325); /* FNV-1a, by words */

    for (unsigned i = 0; i < set->count; i++) {
        const struct block_image *image = written(set, i);
        struct timespec time = {0};

        if (!image)
            continue;
        if (get_time(image, &time) < 0)
            return 0;
        sum = (sum ^ (uint64_t)time.tv_sec) * UINT64_C(0x100000001b3);
        sum = (sum ^ (uint64_t)time.tv_nsec) * UINT64_C(0x100000001b3);
    }
    return sum ? sum : 1;
}

uint64_t block_handover_offer(const struct block_handover *set)
{
    uint64_t sum;

    for (unsigned i = 0; i < set->count; i++) {
        struct block_image *image = written(set, i);

        if (!image)
            continue;
        int r = stamp(image);

        image->stamped = r == 0;
        if (r < 0)
            log_warn("disk %s: %s: cannot set its time (%s): if the move breaks off now, nobody "
                     "can tell whether it was written",
                     set->disks[i].id, set->disks[i].path, strerror(-r));
    }
    sum = first_written(set) ? sum_of_times(set) : 0;
    unlock_images(set);
    return sum;
}

static int lock_images(const struct block_handover *set, struct error *err)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < set->count; i++) {
        struct block_image *image = written(set, i);

        r = image ? block_image_lock(image, err) : 0;
        if (r < 0)
            name_disk(set, i, err);
    }
    if (r < 0)
        unlock_images(set);
    return r;
}

int block_handover_retake(const struct block_handover *set, struct error *err)
{
    static const struct timespec now = {.tv_nsec = UTIME_NOW};
    int r = lock_images(set, err);

    /* A target that wakes up when this process has died is not to find the stamps. */
    for (unsigned i = 0; r == 0 && i < set->count; i++)
        if (written(set, i))
            (void)set_time(written(set, i), &now);
    return r;
}

static int check_size(const struct block_handover *set, unsigned disk, struct error *err)
{
    struct block *block = set->disks[disk].block;
    uint64_t before = block_size_sectors(block);

    if (!block_refresh_size(block))
        return 0;
    error_set(err, ESTALE, "it has %llu bytes now, and had %llu when the machine was prepared",
              (unsigned long long)block_size_sectors(block) * SECTOR_SIZE,
              (unsigned long long)before * SECTOR_SIZE);
    return name_disk(set, disk, err);
}

/* Nobody touched the images since they were offered; from now on they look touched. */
static int begin(const struct block_handover *set, uint64_t times, struct error *err)
{
    static const struct timespec now = {.tv_nsec = UTIME_NOW};
    const struct block_image *image = first_written(set);
    int r;

    for (unsigned i = 0; i < set->count; i++) {
        r = written(set, i) ? check_size(set, i, err) : 0;
        if (r < 0)
            return r;
    }
    if (times == 0 || sum_of_times(set) != times)
        return error_set(err, ESTALE,
                         "a disk was touched since the machine stopped: it was run, or written by "
                         "somebody else");
    r = set_time(image, &now);
    if (r < 0)
        return error_errno(err, -r, "cannot set the time of the first disk");
    r = block_lock_byte(image->fd, place(set, PROMISE), true);
    return r < 0 ? error_errno(err, -r, "cannot lock the first disk") : 0;
}

int block_handover_take(const struct block_handover *set, uint64_t times, bool *ret_arbiter,
                        struct error *err)
{
    const struct block_image *image = first_written(set);
    int r;

    if (!image) {
        *ret_arbiter = false;
        return 0;
    }
    r = block_lock_byte(image->fd, place(set, ARBITER), true);
    if (r == -EAGAIN)
        return error_set(err, EAGAIN, "the source has taken the machine back");
    if (r < 0)
        return error_errno(err, -r, "cannot lock the first disk");
    r = lock_images(set, err);
    if (r == 0)
        r = begin(set, times, err);
    if (r < 0)
        goto fail;
    *ret_arbiter = true;
    return 0;

fail:
    unlock_images(set);
    block_unlock_bytes(image->fd, place(set, ARBITER), 1);
    return r;
}

/* Whether nobody touched the images, which are locked. Errors: of statx(2). */
static int look(const struct block_handover *set, bool *ret_touched, struct error *why,
                struct error *err)
{
    bool touched = false;

    for (unsigned i = 0; !touched && i < set->count; i++) {
        const struct block_image *image = written(set, i);
        struct timespec time = {0};

        if (!image)
            continue;
        int r = image->stamped ? get_time(image, &time) : 0;

        if (r < 0) {
            error_errno(err, -r, "cannot tell its time");
            return name_disk(set, i, err);
        }
        touched = !image->stamped || !is_same_time(&time, &image->stamp);
        if (!touched)
            continue;
        error_set(why, ESTALE,
                  image->stamped ? "it was written, or the machine began to run there"
                                 : "its time could not be set, so nobody can tell "
                                   "whether it was written");
        name_disk(set, i, why);
    }
    *ret_touched = touched;
    return 0;
}

/* They were given up for nothing: they get their times back, too. */
static void forget_stamps(const struct block_handover *set)
{
    for (unsigned i = 0; i < set->count; i++) {
        struct block_image *image = written(set, i);

        if (image && image->stamped)
            (void)set_time(image, &image->time_before); /* nothing depends on it any more */
    }
}

int block_handover_ask(const struct block_handover *set, enum block_handover_answer *ret_answer,
                       struct error *why, struct error *err)
{
    const struct block_image *image = first_written(set);
    bool touched = true;
    int r;

    if (!image) {
        error_set(why, ENOLCK, "it has no disk that is written, whose locks would tell who has it");
        *ret_answer = HANDOVER_UNKNOWN;
        return 0;
    }
    r = block_lock_byte(image->fd, place(set, ARBITER), true);
    if (r == -EAGAIN && !block_is_byte_locked(image->fd, place(set, PROMISE)))
        return error_set(err, EAGAIN, "the other side is about to take the machine");
    if (r == -EAGAIN) {
        *ret_answer = HANDOVER_TAKEN;
        return 0;
    }
    if (r < 0)
        return error_errno(err, -r, "cannot lock the first disk");
    r = lock_images(set, why);
    if (r < 0) {
        *ret_answer = HANDOVER_UNKNOWN;
        return 0;
    }
    r = look(set, &touched, why, err);
    if (touched)
        unlock_images(set);
    else
        forget_stamps(set);
    if (r < 0)
        return r;
    *ret_answer = touched ? HANDOVER_UNKNOWN : HANDOVER_AS_IT_WAS;
    return 0;
}
