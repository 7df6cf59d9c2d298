"""What a client may store, and the room that a repository keeps free.

Counted here, where chunks are stored, so that no client and no worker can talk its way
around it. Called by the backup sessions under the ledger's lock; touches no chunk itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borgcube.core.errors import JobFailed, Problem

# A stored chunk costs more than its data: 41 bytes of the repository's envelope (type, MAC,
# nonce) and 41 of the entry in Borg's segment (CRC, size, tag, ID).
ENTRY_BYTES = 82
CHECK_EVERY_BYTES = 64 << 20
LEAST_STEP_BYTES = 1 << 20
# For what is stored between two looks, and for the sessions' partial archives.
SPARE_BYTES = 8 << 20
NO_LIMIT = -1


def shown(count: int) -> str:
    """Return a number of bytes for people, such as ``1.5 GiB``."""
    value, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} bytes" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


class SessionStopped(JobFailed):
    """A session has to end here; the repository and all other sessions are sound.

    What was uploaded was within the limits and is kept for the plan's next run.
    """

    keep = True


@dataclass(frozen=True)
class ClientLimits:
    """The limits of one session, in bytes and items; 0 is none.

    ``total_left`` is what the client's archives leave of ``total_bytes``; NO_LIMIT is none.
    """

    client: str = ""
    job_bytes: int = 0
    total_bytes: int = 0
    total_left: int = NO_LIMIT
    items: int = 0

    @classmethod
    def of(cls, client: str, data: Mapping[str, Any]) -> ClientLimits:
        """Return the limits in a worker's request; raises ValueError or TypeError."""
        left = data.get("total_left")
        return cls(
            client=client,
            job_bytes=int(data.get("job_bytes") or 0),
            total_bytes=int(data.get("total_bytes") or 0),
            total_left=NO_LIMIT if left is None else max(0, int(left)),
            items=int(data.get("files") or 0),
        )

    def too_many_items(self) -> SessionStopped:
        """Return the end of a session whose archive has too many items."""
        return self._reached(
            "limit-files",
            f"has more than {self.items} files, directories and links in this plan, its limit",
            "--max-files COUNT",
        )

    def job_is_full(self) -> SessionStopped:
        """Return the end of a session that would store too much."""
        return self._reached(
            "limit-job-bytes",
            f"has more than {shown(self.job_bytes)} of new data, its limit for one backup",
            "--max-job-bytes SIZE",
        )

    def total_is_full(self, used: int) -> SessionStopped:
        """Return the end of a session of a client that has stored all it may."""
        return self._reached(
            "limit-total-bytes",
            f"has stored {shown(self.total_bytes - self.total_left + used)} and needs more than "
            f"its limit of {shown(self.total_bytes)}",
            "--max-total-bytes SIZE",
        )

    def _reached(self, kind: str, what: str, option: str) -> SessionStopped:
        name = self.client or "NAME"
        return SessionStopped(
            kind,
            Problem.CLIENT,
            f"Client {name} {what}.",
            next_step=f"Look at what grew there, or raise it: borgcube client set {name} {option}. "
            "What was stored is reused.",
        )


class Accounts:
    """What each client's sessions stored since the vault started; under the ledger's lock."""

    def __init__(self) -> None:
        self._stored: dict[str, int] = {}
        self._open: dict[str, list[Account]] = {}

    def open(self, limits: ClientLimits, *, carried: int) -> Account:
        """Begin a session; ``carried`` bytes are held by the client's unfinished backups."""
        account = Account(self, limits, carried)
        mine = self._open.setdefault(limits.client, [])
        # What runs beside it is in no archive yet, so that it was not subtracted.
        account.base = self.stored(limits.client) - sum(one.charged for one in mine)
        mine.append(account)
        return account

    def close(self, account: Account) -> None:
        """End a session; safe to repeat."""
        mine = self._open.get(account.limits.client, [])
        if account in mine:
            mine.remove(account)

    def stored(self, client: str) -> int:
        """Return the bytes that a client stored since the vault started."""
        return self._stored.get(client, 0)

    def add(self, client: str, count: int) -> None:
        """Count bytes that a client stores."""
        self._stored[client] = self.stored(client) + count


class Account:
    """The bytes that one session stores: ``charged``."""

    def __init__(self, accounts: Accounts, limits: ClientLimits, carried: int) -> None:
        self.limits = limits
        self.charged = 0
        self.base = 0
        self._accounts = accounts
        self._carried = carried

    def charge(self, length: int) -> None:
        """Count a chunk before it is stored; raises SessionStopped when it is too much."""
        cost, limits = length + ENTRY_BYTES, self.limits
        if limits.job_bytes and self.charged + cost > limits.job_bytes:
            raise limits.job_is_full()
        if limits.total_left != NO_LIMIT:
            used = self._carried + self._accounts.stored(limits.client) - self.base
            if used + cost > limits.total_left:
                raise limits.total_is_full(used)
        self.charged += cost
        self._accounts.add(limits.client, cost)

    def close(self) -> None:
        """End the account with its session; safe to repeat."""
        self._accounts.close(self)


class FreeSpace:
    """The free space of the repository's file system, and the floor it must not go below.

    A few megabytes below the floor are left for what ends the sessions cleanly: their
    partial archives, Borg's index and a commit.
    """

    def __init__(self, path: Path, *, name: str, floor: int) -> None:
        self._path, self._name, self._floor = path, name, floor
        self._until_check = 0
        self._unwritten = 0
        self.commit_bytes: Callable[[], int] = lambda: 0

    def free(self) -> int:
        """Return the bytes that are free to this process; raises OSError."""
        found = os.statvfs(self._path)
        return found.f_bavail * found.f_frsize

    def check(self) -> None:
        """Raise SessionStopped below the floor."""
        if not self._floor:
            self._until_check = CHECK_EVERY_BYTES
            return
        free, needed = self.free() - self._unwritten, self.commit_bytes() + SPARE_BYTES
        lowest = max(self._floor, needed)
        if free < lowest:
            self._until_check = 0
            raise SessionStopped(
                "repository-low-space",
                Problem.REPOSITORY,
                f"Repository {self._name} has {shown(free)} free, less than "
                + ("its floor of " if lowest == self._floor else "its next commit may need: ")
                + f"{shown(lowest)}.",
                next_step="Make room on its storage or delete archives, then run the backup "
                "again; what was stored is reused. To change the floor: "
                f"borgcube repository set {self._name} --free-floor SIZE",
            )
        # Near the floor it looks more often, so that little is stored beyond it.
        self._until_check = min(CHECK_EVERY_BYTES, max(LEAST_STEP_BYTES, (free - lowest) // 2))

    def spend(self, length: int) -> None:
        """Note that ``length`` bytes are about to be stored; looks now and then."""
        self._until_check -= length
        if self._until_check <= 0:
            self.check()
        self._unwritten += length

    def written(self, length: int) -> None:
        """Note that it is stored, or never will be."""
        self._unwritten -= length
