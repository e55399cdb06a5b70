/* Makes a program believe that everything is synced at once: what the power cuts must find out. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

int fsync(int file) { return (void)file, 0; }
int fdatasync(int file) { return (void)file, 0; }
int sync_file_range(int file, off64_t offset, off64_t count, unsigned int flags) {
    return (void)file, (void)offset, (void)count, (void)flags, 0;
}
