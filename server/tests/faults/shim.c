/* Faults for a server under test, preloaded into it (LD_PRELOAD).
 *
 * It knows a control file, which it maps, and a file to which it appends what every completed
 * sync of a log covered. Only files below a folder named "store" are touched. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The test knows this layout: see mod.rs. */
struct control {
    /* What is to happen. */
    _Atomic uint32_t sync_delay_ms, sync_errno, write_errno, pause_ms;
    /* What has happened. */
    _Atomic uint32_t syncs_begun, syncs_done, pauses_begun, pauses_done, writes_failed;
    /* A planted fault: what fails says that it succeeded. */
    _Atomic uint32_t hides_failures;
};

static struct control *control;
static int sync_log = -1;

/* Waits until the milliseconds in `ms` are over; the test may change them meanwhile. */
static void linger(const _Atomic uint32_t *ms) {
    const struct timespec step = {0, 2000000};
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t passed_ms =
            (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000;
        if (passed_ms >= atomic_load(ms)) return;
        nanosleep(&step, NULL);
    }
}

static void pause_thread(int number) {
    (void)number;
    int kept = errno;
    atomic_fetch_add(&control->pauses_begun, 1);
    linger(&control->pause_ms);
    atomic_fetch_add(&control->pauses_done, 1);
    errno = kept;
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULTS_CONTROL");
    const char *log = getenv("FAULTS_SYNC_LOG");
    if (!path || !log) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) abort();
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) abort();
    close(file);
    sync_log = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (sync_log < 0) abort();
    struct sigaction action = {.sa_handler = pause_thread, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN + 5, &action, NULL);
    control = map;
}

/* Path of a file of the store; 0: it is none. */
static int store_path(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strstr(path, "/store/") != NULL;
}

static int sync_file(int file, long number) {
    char path[4096], line[4200];
    if (!control || !store_path(file, path, sizeof path)) return (int)syscall(number, file);
    /* What is written while it syncs may or may not be covered: it does not count. A log is longer
     * than what is written. */
    off_t written = lseek(file, 0, SEEK_CUR);
    if (written < 0) return -1;
    atomic_fetch_add(&control->syncs_begun, 1);
    linger(&control->sync_delay_ms);
    int failure = (int)atomic_load(&control->sync_errno);
    if (failure) {
        if (atomic_load(&control->hides_failures)) return 0;
        errno = failure;
        return -1;
    }
    int result = (int)syscall(number, file);
    if (result == 0) {
        int length = snprintf(line, sizeof line, "%lld %s\n", (long long)written, path);
        if (syscall(SYS_write, sync_log, line, length) != length) abort();
        atomic_fetch_add(&control->syncs_done, 1);
    }
    return result;
}

int fdatasync(int file) { return sync_file(file, SYS_fdatasync); }
int fsync(int file) { return sync_file(file, SYS_fsync); }

/* A disk that runs full takes the first half of what is written. */
ssize_t write(int file, const void *bytes, size_t count) {
    static _Thread_local int torn;
    char path[4096];
    int failure = control ? (int)atomic_load(&control->write_errno) : 0;
    if (!failure || !store_path(file, path, sizeof path)) {
        return syscall(SYS_write, file, bytes, count);
    }
    if (atomic_load(&control->hides_failures)) return (ssize_t)count;
    torn = !torn;
    if (torn && count > 1) return syscall(SYS_write, file, bytes, count / 2);
    torn = 0;
    atomic_fetch_add(&control->writes_failed, 1);
    errno = failure;
    return -1;
}
