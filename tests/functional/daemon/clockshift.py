"""A library for LD_PRELOAD that shifts the wall clock of a process, and no other clock."""

from __future__ import annotations

import subprocess
from pathlib import Path

# By the number of seconds in the file $SHIFT. The ctime of files of $FROZEN bytes is always one of
# 2020: of a client whose owner hides that they were changed.
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long shift(void) {
    char text[32] = {0};
    const char *name = getenv("SHIFT");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    return atol(text);
}
int clock_gettime(clockid_t which, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, found);
    if (result == 0 && which == CLOCK_REALTIME) found->tv_sec += shift();
    return result;
}
int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return result;
}
time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
static int frozen(int result, struct stat64 *found) {
    const char *size = getenv("FROZEN");
    if (result == 0 && size && *size != '0' && found->st_size == atol(size)) {
        found->st_ctim.tv_sec = 1577836800;
        found->st_ctim.tv_nsec = 0;
    }
    return result;
}
#define WRAPPED(name, parameters, arguments) \\
    int name parameters { \\
        static int (*real) parameters; \\
        if (!real) real = dlsym(RTLD_NEXT, #name); \\
        return frozen(real arguments, (struct stat64 *)found); \\
    }
WRAPPED(fstat64, (int fd, struct stat64 *found), (fd, found))
WRAPPED(lstat64, (const char *path, struct stat64 *found), (path, found))
WRAPPED(stat64, (const char *path, struct stat64 *found), (path, found))
WRAPPED(fstatat64, (int at, const char *path, struct stat64 *found, int flags),
        (at, path, found, flags))
"""


def build(directory: Path) -> Path:
    """Compile it and return the library."""
    library = directory / "clock.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"],
        input=SOURCE.encode(), check=True, timeout=60,
    )  # fmt: skip
    return library


def shifted_borg(directory: Path, library: Path, *, stock: str, frozen: int = 0) -> Path:
    """Make a command in ``directory`` that runs borg with its clock shifted by the seconds in
    the file ``shift`` there, and the ctime of files of ``frozen`` bytes hidden."""
    command = directory / "borg"
    environment = f"LD_PRELOAD={library} SHIFT={directory / 'shift'}"
    command.write_text(f'#!/bin/sh\n{environment} FROZEN={frozen} exec {stock} "$@"\n')
    command.chmod(0o755)
    return command
