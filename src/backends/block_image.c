/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_image: opens the image of a disk and finds out what it is. The one thing
 * to know: it is locked before anything of it is believed.
 */
#include "block_image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block_lock.h"
#include "vmrun/block.h"
#include "vmrun/log.h"

int block_image_size(const struct block_image *image, uint64_t *ret_bytes)
{
    struct stat st;

    if (image->is_device)
        return ioctl(image->fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno : 0;
    if (fstat(image->fd, &st) < 0)
        return -errno;
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

int block_image_identity(const struct block_image *image, struct block_identity *ret_identity)
{
    struct block_identity identity = {0};
    struct stat st;
    int r = block_image_size(image, &identity.bytes);

    if (r < 0)
        return r;
    if (!image->is_device) {
        if (fstat(image->fd, &st) < 0)
            return -errno;
        identity.mtime_ns =
            (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    }
    *ret_identity = identity;
    return 0;
}

int block_identify(const char *path, struct block_identity *ret_identity, struct error *err)
{
    struct block_image image = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    struct stat st;
    int r;

    if (image.fd < 0)
        return error_errno(err, errno, "cannot open");
    if (fstat(image.fd, &st) < 0) {
        r = error_errno(err, errno, "cannot tell what it is");
        goto done;
    }
    image.is_device = S_ISBLK(st.st_mode);
    if (!image.is_device && !S_ISREG(st.st_mode)) {
        r = error_set(err, EINVAL, "not a file or block device");
        goto done;
    }
    r = block_image_identity(&image, ret_identity);
    if (r < 0)
        error_errno(err, -r, "cannot tell its size");
done:
    close(image.fd);
    return r;
}

/* The smallest unit that O_DIRECT takes here, by trying. Errors: -EINVAL, none. */
static int probe_alignment(struct block_image *image)
{
    uint8_t *buf;
    int r = -EINVAL;

    image->alignment = image->memory_alignment = SECTOR_SIZE;
    if (!image->direct)
        return 0;
    if (posix_memalign((void **)&buf, 4096, 8192) != 0)
        return -ENOMEM;
    for (unsigned size = SECTOR_SIZE; r < 0 && size <= 4096; size *= 2) {
        image->alignment = size;
        if (pread(image->fd, buf, size, 0) >= 0 || errno != EINVAL)
            r = 0; /* of a bad sector the guest is to hear when it reads it */
    }
    for (unsigned size = SECTOR_SIZE; size <= 4096; size *= 2) {
        image->memory_alignment = size;
        if (pread(image->fd, buf + size, image->alignment, 0) >= 0 || errno != EINVAL)
            break;
    }
    free(buf);
    return r;
}

/*
 * Beyond the end there is nothing to lose: the file system says whether it could. The file's time
 * must not tell of it, or a snapshot would find its disk "written to since". Only the owner may put
 * the time back, and not while another writes; then it stays untried: a discard that cannot be done
 * does nothing.
 */
static bool try_discard(const struct block_image *image, const struct stat *st)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st->st_mtim};
    off_t end = (st->st_size + 4095) / 4096 * 4096;

    if (image->elsewhere || futimens(image->fd, times) < 0)
        return true;
    bool can = fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, 4096) == 0;

    (void)futimens(image->fd, times);
    return can;
}

/* What kind of image it is, how large, and in which units. */
static int examine(struct block_image *image, struct error *err)
{
    struct stat st;
    uint64_t bytes = 0;
    int logical = 0;
    unsigned physical = 0;
    int r;

    if (fstat(image->fd, &st) < 0)
        return error_errno(err, errno, "cannot examine");
    image->is_device = S_ISBLK(st.st_mode);
    if (!image->is_device && !S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "neither a file nor a block device");
    r = block_image_size(image, &bytes);
    if (r < 0)
        return error_errno(err, -r, "cannot tell its size");
    if (bytes == 0)
        return error_set(err, EINVAL, "empty; a disk has a size: truncate -s SIZE FILE");
    if (bytes % SECTOR_SIZE != 0)
        return error_set(err, EINVAL,
                         "%llu bytes are no whole number of sectors of %u; is it a raw image?",
                         (unsigned long long)bytes, SECTOR_SIZE);

    image->logical = SECTOR_SIZE;
    image->physical = (unsigned)st.st_blksize;
    if (image->is_device) {
        if (ioctl(image->fd, BLKSSZGET, &logical) == 0 && logical > 0)
            image->logical = (unsigned)logical;
        if (ioctl(image->fd, BLKPBSZGET, &physical) == 0)
            image->physical = physical;
    }
    if (image->physical & (image->physical - 1) || image->physical > 4096)
        image->physical = 4096;
    if (image->physical < image->logical)
        image->physical = image->logical;
    image->can_discard = !image->read_only && (image->is_device || try_discard(image, &st));
    return 0;
}

static int refuse_direct(struct error *err)
{
    return error_set(err, EINVAL,
                     "its file system cannot do without the page cache (O_DIRECT), as \"cache\": "
                     "\"none\" asks; use \"cache\": \"writeback\"");
}

int block_image_open(struct block_image *image, const char *path, struct error *err)
{
    struct error locks;
    struct stat st;
    int flags = (image->read_only ? O_RDONLY : O_RDWR) | (image->direct ? O_DIRECT : 0);
    int r;

    /* Before it is opened: that of a pipe would wait, and of a tape wind. */
    if (stat(path, &st) < 0)
        return error_errno(err, errno, "cannot open");
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(err, EINVAL, "neither a file nor a block device");
    image->fd = open(path, flags | O_CLOEXEC);
    if (image->fd < 0 && errno == EINVAL && image->direct)
        return refuse_direct(err);
    if (image->fd < 0)
        return error_errno(err, errno, image->read_only ? "cannot open" : "cannot open to write");
    /* Before anything is read: what it says may still be another's to change. */
    r = image->elsewhere ? 0 : block_lock(image->fd, image->read_only, &locks);
    if (r == -ENOLCK) { /* better than no disk */
        log_warn("%s: %s: nothing keeps other programs from writing it", path, locks.msg);
    } else if (r < 0) {
        *err = locks;
        return r;
    }
    r = examine(image, err);
    if (r < 0)
        return r;
    r = probe_alignment(image);
    return r == -EINVAL ? refuse_direct(err) : r < 0 ? error_set(err, -r, "out of memory") : 0;
}

int block_image_lock(struct block_image *image, struct error *err)
{
    int r = block_lock(image->fd, image->read_only, err);

    if (r < 0)
        block_unlock(image->fd);
    else
        image->elsewhere = false;
    return r;
}

void block_image_unlock(struct block_image *image)
{
    image->elsewhere = true;
    block_unlock(image->fd);
}

void block_image_close(struct block_image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    image->fd = -1;
}
