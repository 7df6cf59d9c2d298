"""A disk that is slow or does not answer, for chosen processes only.

Their ``fsync`` and ``fdatasync`` wait: slowly, woken again and again as a real disk that works
does it, or in one call that nobody answers. It needs a C compiler.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int ours(void) {
    static int known = -1;
    if (known >= 0) return known;
    char line[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    for (ssize_t i = 0; i < length; i++) if (!line[i]) line[i] = ' ';
    line[length > 0 ? length : 0] = 0;
    return known = strstr(line, getenv("FAKEDISK_PROCESSES")) != NULL;
}
static void note(const char *directory) {
    char path[4096];
    strcpy(path, directory); strcat(path, "/waits");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) { if (write(fd, "w", 1) < 0) {} close(fd); }
}
static void wait_for_disk(void) {
    char path[4096];
    const char *directory = getenv("FAKEDISK");
    if (!directory || strlen(directory) > 4000 || !ours()) return;
    strcpy(path, directory); strcat(path, "/slow");
    if (!access(path, F_OK)) note(directory);
    while (!access(path, F_OK)) usleep(200000);
    strcpy(path, directory); strcat(path, "/hung");
    if (!access(path, F_OK)) {
        note(directory);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) close(fd);
    }
}
int fsync(int fd) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class Disk:
    """Control over a disk; ``directory`` is made. ``processes`` is what is in the command line
    of those that it is for."""

    def __init__(self, directory: Path, *, processes: str) -> None:
        directory.mkdir()
        self.directory = directory
        library = directory / "disk.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"],
            input=SOURCE.encode(), check=True, timeout=60,
        )  # fmt: skip
        self.environment = {
            "LD_PRELOAD": str(library), "FAKEDISK": str(directory),
            "FAKEDISK_PROCESSES": processes,
        }  # fmt: skip

    @property
    def waits(self) -> int:
        """How often somebody began to wait."""
        path = self.directory / "waits"
        return path.stat().st_size if path.exists() else 0

    def wait_until_used(self, timeout_s: float = 30) -> None:
        """Wait until somebody waits."""
        deadline = time.monotonic() + timeout_s
        while self.waits == 0:
            if time.monotonic() > deadline:
                raise TimeoutError("nobody waits for the disk")
            time.sleep(0.05)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Let it work, and not end."""
        (self.directory / "slow").touch()
        try:
            yield
        finally:
            (self.directory / "slow").unlink()

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Let it not answer."""
        path = self.directory / "hung"
        os.mkfifo(path)
        try:
            yield
        finally:
            free = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # whoever waits goes on
            path.unlink()
            time.sleep(0.2)
            os.close(free)
