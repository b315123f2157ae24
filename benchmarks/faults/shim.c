/* Between a process and its file system, by LD_PRELOAD: counts the calls that concern files below a folder, kills the
 * process at one of them or lets it fail, and writes all of them down. See shim.py, which builds and steers it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, FAIL, FULL };
enum { OPEN = 'o', CREATE = 'c', WRITE = 'w', SYNC = 's', RENAME = 'r', LINK = 'l', UNLINK = 'u', MKDIR = 'm',
       RMDIR = 'd', TRUNCATE = 't', READ = 'R', LOOK = 'L', MARK = 'M' };

static char prefix[PATH_MAX], left_out[PATH_MAX];
static int action, number, log_fd = -1, trace_fd = -1;
static long at;
static atomic_long calls;

void shim_arm(const char *folder, int what, long k, int error, int fd) {
    action = what, at = k, number = error, log_fd = fd;
    atomic_store(&calls, 0);
    snprintf(prefix, sizeof prefix, "%s/", folder);
}
void shim_disarm(void) { prefix[0] = 0; }
void shim_leave_out(const char *folder) { snprintf(left_out, sizeof left_out, "%s/", folder); }
void shim_trace(int fd) { trace_fd = fd; }
long shim_count(void) { return atomic_load(&calls); }

static int below(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return length && strncmp(path, folder, length - 1) == 0 && (path[length - 1] == '/' || path[length - 1] == 0);
}
static int inside(const char *path) { return below(path, prefix) && !below(path, left_out); }

static void of_fd(int fd, char *path) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, name, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void of_name(int folder, const char *name, char *path) {
    if (name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return; }
    char base[PATH_MAX / 2];
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
    else { char whole[PATH_MAX]; of_fd(folder, whole); snprintf(base, sizeof base, "%.*s", (int)sizeof base - 1, whole); }
    snprintf(path, PATH_MAX, "%s/%s", base, name);
}

static void put(const void *data, size_t length) {
    const char *rest = data;
    while (length) {
        ssize_t n = syscall(SYS_write, log_fd, rest, length);
        if (n <= 0) return;
        rest += n, length -= n;
    }
}

static void record(char kind, const char *one, const char *other, int64_t offset, const void *data, uint64_t length) {
    if (log_fd < 0) return;
    uint32_t first = strlen(one), second = other ? strlen(other) : 0;
    put(&kind, 1), put(&first, 4), put(&second, 4), put(&offset, 8), put(&length, 8);
    put(one, first), put(other ? other : "", second), put(data, length);
}
void shim_mark(const char *text) { record(MARK, text, NULL, 0, NULL, 0); }

static void die(void) { syscall(SYS_kill, syscall(SYS_getpid), SIGKILL); }

/* Whether this call fails (errno is set). `room` says whether it needs any: 0 never, 1 yes, 2 only by a rare error. */
static int faulty(char kind, const char *path, int room, int *tear) {
    long k = atomic_fetch_add(&calls, 1);
    *tear = 0;
    if (trace_fd >= 0) {
        char line[PATH_MAX + 4];
        int length = snprintf(line, sizeof line, "%c %s\n", kind, path);
        syscall(SYS_write, trace_fd, line, length);
    }
    if (action == KILL && k == at) die();
    if (action == TEAR && k == at) *tear = 1;
    if (action == FULL && k >= at && room == 1) { errno = ENOSPC; return 1; }
    if (action == FAIL && k == at && (number != ENOSPC || room)) { errno = number; return 1; }
    return 0;
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })
#define GUARDED(kind, path, room) int tear; if (faulty(kind, path, room, &tear)) return -1;
#define AFTER if (tear) die();

static int writes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; }

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    of_name(folder, name, path);
    if (!inside(path)) return syscall(SYS_openat, folder, name, flags, mode);
    int tear;
    if (faulty(writes(flags) ? OPEN : LOOK, path, writes(flags) && (flags & O_CREAT) ? 1 : 0, &tear)) return -1;
    int fd = syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0 && writes(flags)) record(flags & O_TRUNC ? CREATE : OPEN, path, NULL, flags & O_CREAT ? 1 : 0, NULL, 0);
    AFTER
    return fd;
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); \
                    mode = va_arg(list, mode_t); va_end(list); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags | O_LARGEFILE, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

static FILE *stream(const char *name, const char *how) {
    int plus = strchr(how, '+') != NULL;
    int flags = how[0] == 'r' ? (plus ? O_RDWR : O_RDONLY)
                              : O_CREAT | (plus ? O_RDWR : O_WRONLY) | (how[0] == 'w' ? O_TRUNC : O_APPEND);
    int fd = opened(AT_FDCWD, name, flags | (strchr(how, 'e') ? O_CLOEXEC : 0), 0666);
    return fd < 0 ? NULL : fdopen(fd, how);
}
FILE *fopen(const char *name, const char *how) {
    char path[PATH_MAX];
    of_name(AT_FDCWD, name, path);
    return inside(path) ? stream(name, how) : REAL(fopen)(name, how);
}
FILE *fopen64(const char *name, const char *how) { return fopen(name, how); }

/* A write needs no room where the file has it already. */
static int needs_room(int fd, int64_t offset, size_t length) {
    struct stat found;
    return fstat(fd, &found) || !S_ISREG(found.st_mode) || offset + (int64_t)length > found.st_size;
}

static int64_t position(int fd) {
    int64_t here = lseek(fd, 0, SEEK_CUR);
    if (fcntl(fd, F_GETFL) & O_APPEND) { struct stat found; if (!fstat(fd, &found)) here = found.st_size; }
    return here;
}

static ssize_t written(int fd, const void *data, size_t length, int64_t offset, int given) {
    char path[PATH_MAX];
    if (prefix[0]) of_fd(fd, path);
    if (!prefix[0] || !inside(path))
        return given ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    if (!given) offset = position(fd);
    GUARDED(WRITE, path, needs_room(fd, offset, length))
    if (tear) length /= 2;
    ssize_t n = given ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    if (n > 0) record(WRITE, path, NULL, offset, data, n);
    AFTER
    return n;
}
ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return written(fd, data, length, offset, 1); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t n = parts[i].iov_len ? write(fd, parts[i].iov_base, parts[i].iov_len) : 0;
        if (n < 0) return all ? all : -1;
        all += n;
        if ((size_t)n < parts[i].iov_len) break;
    }
    return all;
}

static ssize_t have_read(int fd, void *data, size_t length, int64_t offset, int given) {
    char path[PATH_MAX];
    if (prefix[0]) of_fd(fd, path);
    if (prefix[0] && inside(path)) { GUARDED(READ, path, 0) AFTER }
    return given ? syscall(SYS_pread64, fd, data, length, offset) : syscall(SYS_read, fd, data, length);
}
ssize_t read(int fd, void *data, size_t length) { return have_read(fd, data, length, 0, 0); }
ssize_t pread(int fd, void *data, size_t length, off_t offset) { return have_read(fd, data, length, offset, 1); }
ssize_t pread64(int fd, void *data, size_t length, off64_t offset) { return have_read(fd, data, length, offset, 1); }

/* Copying within the kernel is refused: those who call it then read and write. */
ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    char path[PATH_MAX];
    if (prefix[0]) { of_fd(out, path); if (inside(path)) { errno = ENOTSOCK; return -1; } }
    return syscall(SYS_sendfile, out, in, offset, length);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) { return sendfile(out, in, offset, length); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t length, unsigned flags) {
    char path[PATH_MAX];
    if (prefix[0]) { of_fd(out, path); if (inside(path)) { errno = EXDEV; return -1; } }
    return syscall(SYS_copy_file_range, in, a, out, b, length, flags);
}

static int synced(int fd, long call) {
    char path[PATH_MAX];
    if (prefix[0]) of_fd(fd, path);
    if (!prefix[0] || !inside(path)) return syscall(call, fd);
    GUARDED(SYNC, path, 2)
    int done = syscall(call, fd);
    if (!done) record(SYNC, path, NULL, 0, NULL, 0);
    AFTER
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int truncated(int fd, int64_t length) {
    char path[PATH_MAX];
    if (prefix[0]) of_fd(fd, path);
    if (!prefix[0] || !inside(path)) return syscall(SYS_ftruncate, fd, length);
    GUARDED(TRUNCATE, path, needs_room(fd, 0, length))
    int done = syscall(SYS_ftruncate, fd, length);
    if (!done) record(TRUNCATE, path, NULL, length, NULL, 0);
    AFTER
    return done;
}
int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }

static int named(char kind, int from, const char *old, int to, const char *new, unsigned flags) {
    char one[PATH_MAX], other[PATH_MAX];
    of_name(from, old, one), of_name(to, new, other);
    long call = kind == LINK ? SYS_linkat : SYS_renameat2;
    if (!inside(one) && !inside(other)) return syscall(call, from, old, to, new, flags);
    GUARDED(kind, inside(other) ? other : one, kind == LINK ? 1 : 2)
    int done = syscall(call, from, old, to, new, flags);
    if (!done) record(kind, one, other, 0, NULL, 0);
    AFTER
    return done;
}
int rename(const char *old, const char *new) { return named(RENAME, AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int a, const char *old, int b, const char *new) { return named(RENAME, a, old, b, new, 0); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { return named(RENAME, a, old, b, new, flags); }
int link(const char *old, const char *new) { return named(LINK, AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int a, const char *old, int b, const char *new, int flags) { return named(LINK, a, old, b, new, flags); }

static int removed(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    of_name(folder, name, path);
    if (!inside(path)) return syscall(SYS_unlinkat, folder, name, flags);
    GUARDED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, 0)
    int done = syscall(SYS_unlinkat, folder, name, flags);
    if (!done) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, NULL, 0, NULL, 0);
    AFTER
    return done;
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return removed(folder, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    of_name(folder, name, path);
    if (!inside(path)) return syscall(SYS_mkdirat, folder, name, mode);
    GUARDED(MKDIR, path, 1)
    int done = syscall(SYS_mkdirat, folder, name, mode);
    if (!done) record(MKDIR, path, NULL, 0, NULL, 0);
    AFTER
    return done;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
