/* Small files, whole: read as a manifest has announced them, made and given their names.
 *
 * Facts. The calls around the bytes of a small file cost more than the bytes. A file that was
 * opened without a name (O_TMPFILE) is gone with its last descriptor, however the process ends;
 * linkat(2) gives it a name at one instant and never replaces. Linking by the descriptor alone
 * (AT_EMPTY_PATH) needs CAP_DAC_READ_SEARCH before Linux 6.10; /proc/self/fd needs nothing.
 * Decision: one try, in as few calls as it takes. Whatever is not as expected is an error here; the
 * caller knows slower ways and better words. Twins: apps/transfer/smallfiles/gather_py.py and
 * scatter_py.py. Each function returns 0 or -errno. */
#ifndef FN_SMALL_H
#define FN_SMALL_H

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fn_sys.h"

#define FN_NS_PER_S 1000000000LL
#define FN_IDENTITY_BYTES 80        /* three numbers in hexadecimal, and more */
#define FN_FD_PATH_BYTES 40         /* "/proc/self/fd/" and a number */

/* A small file on its way in. folder: a descriptor; name: one component of a path. */
struct fn_small {
    int folder;
    unsigned int mode;
    const char *name, *content;
    size_t size;
    int64_t mtime_ns;
};

/* Whether this is the file that had this identity (identity.identity: device, inode and ctime). */
static inline int fn_small_is(const struct stat *found, const char *identity) {
    char is[FN_IDENTITY_BYTES];
    long long ctime_ns = found->st_ctim.tv_sec * FN_NS_PER_S + found->st_ctim.tv_nsec;
    snprintf(is, sizeof is, "%llx-%llx-%llx", (unsigned long long)found->st_dev,
             (unsigned long long)found->st_ino, ctime_ns);
    return strcmp(is, identity) == 0;
}

/* Read the first `size` bytes of the file at `place`, if it is still the one announced. -ESTALE: it
 * is not, or it shrank. */
static inline int fn_small_read(const char *place, const char *identity, char *to, size_t size) {
    int fd, result = 0;
    FN_RETRY(fd, open(place, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd < 0) return fd;
    struct stat found;
    if (fstat(fd, &found) < 0) result = -errno;
    else if (!S_ISREG(found.st_mode) || (uint64_t)found.st_size < size ||
             !fn_small_is(&found, identity)) result = -ESTALE;
    while (size && !result) {
        ssize_t got;
        FN_RETRY(got, read(fd, to, size));
        if (got > 0) to += got, size -= (size_t)got;
        else result = got < 0 ? (int)got : -ESTALE;
    }
    close(fd);
    return result;
}

static inline int fn_small_fill(int fd, const struct fn_small *file) {
    const char *from = file->content;
    size_t left = file->size;
    while (left) {
        ssize_t written;
        FN_RETRY(written, write(fd, from, left));
        if (written < 0) return (int)written;
        from += written, left -= (size_t)written;
    }
    long long second = file->mtime_ns / FN_NS_PER_S, ns = file->mtime_ns % FN_NS_PER_S;
    if (ns < 0) second--, ns += FN_NS_PER_S; /* before 1970 */
    struct timespec time = {.tv_sec = second, .tv_nsec = ns}, times[2] = {time, time};
    if (fchmod(fd, file->mode) < 0 || futimens(fd, times) < 0) return -errno;
    return 0;
}

/* Give the open file its name. -EEXIST: something has it. */
static inline int fn_small_name(int fd, const struct fn_small *file) {
    if (linkat(fd, "", file->folder, file->name, AT_EMPTY_PATH) == 0) return 0;
    if (errno != ENOENT && errno != EPERM) return -errno;
    char open_as[FN_FD_PATH_BYTES];
    snprintf(open_as, sizeof open_as, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, open_as, file->folder, file->name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* Whether a name is one path component, even if it was checked before. */
static inline int fn_small_is_component(const char *name) {
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Make it, fill it, name it. On an error there is nothing. */
static inline int fn_small_make(const struct fn_small *file) {
    int fd;
    if (!fn_small_is_component(file->name)) return -EINVAL;
    FN_RETRY(fd, openat(file->folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (fd < 0) return fd;
    int result = fn_small_fill(fd, file);
    if (!result) result = fn_small_name(fd, file);
    close(fd);
    return result;
}

#endif
