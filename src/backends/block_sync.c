/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_sync: the slow ways: transfers that O_DIRECT does not take (through the
 * page cache), the rest of one that came back short, discards and zeros.
 *
 * The one thing to know: a page of the cache holds several sectors, so that a
 * direct write to one of them must not be in flight meanwhile; the caller waits
 * for all of them first, and what is written here is on the disk when it returns.
 */
#include "block_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIECES 64                 /* iovecs in one call */
#define ZEROS_BYTES (64u << 10)   /* of one iovec of zeros */
#define CALL_BYTES_MAX (1u << 30) /* of one call, below the kernel's limit */

static uint8_t zeros[ZEROS_BYTES];

static int set_direct(int fd, bool direct)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) < 0)
        return -errno;
    return 0;
}

/* The part of iov from byte `skip` on, as far as one call takes it. Returns how many pieces. */
static unsigned cut(const struct iovec *iov, unsigned count, uint64_t skip, struct iovec *pieces)
{
    unsigned n = 0;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < count && n < PIECES && bytes < CALL_BYTES_MAX; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        pieces[n] = (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + skip,
                                   .iov_len = iov[i].iov_len - skip};
        if (pieces[n].iov_len > CALL_BYTES_MAX)
            pieces[n].iov_len = CALL_BYTES_MAX;
        bytes += pieces[n++].iov_len;
        skip = 0;
    }
    return n;
}

static int transfer(int fd, const struct block_request *request)
{
    struct iovec pieces[PIECES];

    for (uint64_t done = request->skip; done < request->bytes;) {
        unsigned n = cut(request->iov, request->iov_count, done, pieces);
        off_t at = (off_t)(request->offset + done);
        ssize_t r = request->op == BLOCK_READ ? preadv(fd, pieces, (int)n, at)
                                              : pwritev(fd, pieces, (int)n, at);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            return -EIO; /* the image was cut while we used it */
        done += (uint64_t)r;
    }
    return 0;
}

int block_sync_transfer(int fd, bool direct, const struct block_request *request)
{
    int r = direct ? set_direct(fd, false) : 0;

    if (r < 0)
        return r;
    r = transfer(fd, request);
    if (direct) {
        int flushed = request->op == BLOCK_WRITE ? block_sync_flush(fd) : 0;
        int restored = set_direct(fd, true);

        r = r < 0 ? r : flushed < 0 ? flushed : restored;
    }
    return r;
}

int block_sync_flush(int fd)
{
    return fdatasync(fd) < 0 ? -errno : 0;
}

static bool is_unsupported(int r)
{
    return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENOTTY || r == -ENODEV;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int r;

    do
        r = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int block_sync_discard(int fd, bool is_device, uint64_t offset, uint64_t bytes)
{
    uint64_t range[2] = {offset, bytes};
    int r;

    if (is_device)
        r = ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
    else
        r = allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, bytes);
    /* -EINVAL: part of a block of a device, which can only be left as it is. */
    return is_unsupported(r) || (is_device && r == -EINVAL) ? 0 : r;
}

static int write_zeros(int fd, uint64_t offset, uint64_t bytes)
{
    struct iovec pieces[PIECES];

    while (bytes > 0) {
        uint64_t planned = 0;
        int n = 0;

        for (; n < PIECES && planned < bytes; n++) {
            uint64_t left = bytes - planned;

            pieces[n] = (struct iovec){.iov_base = zeros,
                                       .iov_len = left < ZEROS_BYTES ? left : ZEROS_BYTES};
            planned += pieces[n].iov_len;
        }
        ssize_t r = pwritev(fd, pieces, n, (off_t)offset);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        offset += (uint64_t)r;
        bytes -= (uint64_t)r;
    }
    return 0;
}

int block_sync_zeroes(int fd, bool direct, uint64_t offset, uint64_t bytes, bool unmap)
{
    int r = unmap ? allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, bytes) : -EOPNOTSUPP;

    if (is_unsupported(r) || r == -EINVAL)
        r = allocate(fd, FALLOC_FL_ZERO_RANGE, offset, bytes);
    if (!is_unsupported(r) && r != -EINVAL)
        return r;
    r = direct ? set_direct(fd, false) : 0;
    if (r < 0)
        return r;
    r = write_zeros(fd, offset, bytes);
    if (direct) {
        int flushed = block_sync_flush(fd);
        int restored = set_direct(fd, true);

        r = r < 0 ? r : flushed < 0 ? flushed : restored;
    }
    return r;
}
