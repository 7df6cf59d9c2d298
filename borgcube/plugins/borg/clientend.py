"""How borg ended on a client, in words that put the blame where it belongs.

Used where a backup, a restore or a dry run is judged. An exit code is the client's word: it
decides how a job without an archive is explained, never whether there is one.
"""

from __future__ import annotations

import signal

from borgcube.core.errors import JobFailed, Problem

# Borg's exit codes for a run that did its work: success, and the modern warnings. 126 and 127 are
# of a shell that could not start it.
DONE_CODES = (0, *range(100, 126))
CANNOT_RUN, NOT_THERE = 126, 127
SIGNAL_BASE = 128  # of shells, and of borg itself when it was asked to end
SIGNALS = range(1, 65)
REASONS: dict[int, str] = {
    signal.SIGKILL: "a machine that runs out of memory does that, and so does a person",
    signal.SIGTERM: "the machine is shut down, or somebody stopped it",
    signal.SIGINT: "somebody stopped it",
    signal.SIGHUP: "its session there ended",
}


def signal_of(code: int | None) -> int:
    """Return the number of the signal that a command on a client ended by, 0 for none.

    A negative code is of our own end of the connection.
    """
    number = (code or 0) - SIGNAL_BASE
    return number if number in SIGNALS else 0


def signal_name(code: int) -> str:
    """Return what the signal is called that a process ended by, from its exit code."""
    number = -code if code < 0 else code - SIGNAL_BASE
    return {one.value: one.name for one in signal.Signals}.get(number, f"signal {number}")


def killed(code: int | None, *, client: str) -> JobFailed | None:
    """Return the failure of a job whose borg was killed on the client, None if it was not."""
    number = signal_of(code)
    if not number:
        return None
    name, reason = signal_name(-number), REASONS.get(number)
    return JobFailed(
        "borg-killed",
        Problem.CLIENT,
        f"{client}: borg was killed there by {name}" + (f": {reason}." if reason else "."),
        next_step="Look at the client's memory and system log. The next run goes on from here.",
    )


def not_run(code: int | None, said: str, *, client: str) -> JobFailed | None:
    """Return the failure of a job whose borg a shell could not start, None if it started."""
    if code not in (CANNOT_RUN, NOT_THERE):
        return None
    return JobFailed(
        "borg-not-started", Problem.CLIENT,
        f"{client}: the shell there could not start borg (code {code}): {said}.",
        next_step="Look at that program's mode and at the mount options of its file system "
        "(noexec), and for a missing interpreter or library.",
    )  # fmt: skip


def no_place_to_run(client: str) -> JobFailed:
    """Return the failure of a job for whose borg there is no place where programs may run."""
    return JobFailed(
        "no-place-to-run", Problem.CLIENT,
        f"{client}: neither TMPDIR, /tmp, /var/tmp nor the home directory there lets a program "
        "run (they are mounted noexec), so the borg that goes along cannot.",
        next_step="Set TMPDIR for this login to a directory that does, or install borg there and "
        "name it: borgcube client set NAME --borg PATH",
    )  # fmt: skip


def vault_lost(client: str) -> JobFailed:
    """Return the failure of a job whose gate lost its vault, which said no more."""
    return JobFailed(
        "vault-lost",
        Problem.SERVER,
        f"The vault ended while it served {client}.",
        next_step="Run the job again; the vault's log says why.",
    )
