"""Packing the store's file so that no crash and no loss of power can cost it.

ZODB packs a file by writing a copy beside it and then renaming twice, and syncs neither.
Here the copy is synced while it grows and once more, while nothing can be committed, before
it takes the file's place; and a crash between the two renamings is mended when the store is
opened. Only :mod:`borgcube.core.store` calls this.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from borgcube.core.errors import StoreError

RESERVE = 256 << 20  # bytes that packing leaves on the disk
SYNC_EVERY_S = 1.0


def mend(uri: str) -> None:
    """Put the file of a store back where a crash came between a pack's two renamings."""
    if not uri.startswith("file://"):
        return
    file = Path(uri.removeprefix("file://").partition("?")[0])
    old = file.with_name(f"{file.name}.old")
    if old.exists() and not file.exists():
        old.rename(file)


def prepare(storage: Any) -> None:
    """Make a storage pack as this module says; other than file storages are left alone."""
    if not hasattr(storage, "pack_keep_old"):
        return
    storage.pack_keep_old = False
    pack = storage.packer

    def packer(storage: Any, referencesf: Any, stop: Any, gc: Any) -> Any:
        copy = Path(f"{storage.getName()}.pack")
        over = threading.Event()
        syncing = threading.Thread(target=_sync_often, args=(copy, over), daemon=True)
        syncing.start()
        try:
            result = pack(storage, referencesf, stop, gc)
        finally:
            over.set()
            syncing.join()
        if result is not None:
            _sync(copy)
        return result

    storage.packer = packer


def _sync_often(path: Path, over: threading.Event) -> None:
    while not over.wait(SYNC_EVERY_S):
        try:
            _sync(path)
        except FileNotFoundError:
            continue


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_room(file: Path) -> None:
    """Raise StoreError unless a copy of the file fits beside it."""
    free, size = shutil.disk_usage(file.parent).free, file.stat().st_size
    if free < size + RESERVE:
        raise StoreError(
            f"There is no room at {file.parent} to pack the store: {free >> 20} MiB are free.",
            next_step=f"Make room for {(size + RESERVE) >> 20} MiB there.",
        )
