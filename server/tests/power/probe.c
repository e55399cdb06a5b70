/* Shows what a power cut does to a disk with a cache: writes a block and has it flushed, writes
 * another and does not, says so, and waits for the end. The kernel's own cache is gone round, so
 * that what is lost is lost by the disk. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static void write_block(int disk, int number, const char *word) {
    void *block;
    if (posix_memalign(&block, BLOCK, BLOCK)) abort();
    memset(block, 0, BLOCK);
    strcpy(block, word);
    if (pwrite(disk, block, BLOCK, (off_t)number * BLOCK) != BLOCK) abort();
}

int main(int count, char **arguments) {
    int disk = open(count > 1 ? arguments[1] : "", O_RDWR | O_DIRECT);
    if (disk < 0) abort();
    write_block(disk, 1, "flushed");
    if (fdatasync(disk) != 0) abort();
    write_block(disk, 2, "not flushed");
    puts("both blocks are written");
    fflush(stdout);
    for (;;) pause();
}
