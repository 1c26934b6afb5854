/* Preloaded into a node under test: makes the disk of some stores fail or be slow, and remembers
 * what had reached it.
 *
 * TBFAST_TEST_SHIM names a directory with the file "control", two little-endian int32: how many
 * of the next syncs fail with EIO, and how many milliseconds each one takes; one that waits goes
 * by what is written there meanwhile.  Meant are files with TBFAST_TEST_SHIM_PLACE in their path.
 * Every successful sync of any file appends "path\tlength\n" to the file "synced": its bytes up to
 * that length survive a power cut. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
    _Atomic int32_t failures;
    volatile int32_t delay_ms;
} * control;
static int synced_fd = -1;
static const char *place;

__attribute__((constructor)) static void shim_open(void) {
    const char *dir = getenv("TBFAST_TEST_SHIM");
    char path[4096];
    place = getenv("TBFAST_TEST_SHIM_PLACE");
    if (!dir || !place)
        return;
    snprintf(path, sizeof path, "%s/control", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (control == MAP_FAILED)
        abort();
    snprintf(path, sizeof path, "%s/synced", dir);
    synced_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (synced_fd < 0)
        abort();
}

static int64_t elapsed_ms(const struct timespec *since) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static int shim_sync(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char link[64], path[4096], line[4200];
    struct stat before;
    if (!control)
        return real(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || fstat(fd, &before) < 0)
        return real(fd);
    path[n] = 0;
    if (strstr(path, place)) {
        struct timespec began;
        clock_gettime(CLOCK_MONOTONIC, &began);
        for (int64_t left_ms; (left_ms = control->delay_ms - elapsed_ms(&began)) > 0;) {
            struct timespec pause = {0, (left_ms < 5 ? left_ms : 5) * 1000000L};
            nanosleep(&pause, NULL);
        }
        int32_t left = atomic_load(&control->failures);
        while (left > 0)
            if (atomic_compare_exchange_weak(&control->failures, &left, left - 1)) {
                errno = EIO;
                return -1;
            }
    }
    int result = real(fd);
    if (result == 0) {
        int length = snprintf(line, sizeof line, "%s\t%lld\n", path, (long long)before.st_size);
        if (write(synced_fd, line, (size_t)length) != length)
            abort();
    }
    return result;
}

int fdatasync(int fd) { return shim_sync("fdatasync", fd); }
int fsync(int fd) { return shim_sync("fsync", fd); }
