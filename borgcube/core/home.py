"""Where things lie: the home directory, its runtime directory and the socket addresses.

Called by everything that starts a process. It only names and makes directories.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from borgcube.core.errors import ConfigurationError

# With less than that, a home is called full: a store, a log and a socket want more.
FULL_BYTES = 1 << 20
DEFAULT_HOME = "~/.local/share/borgcube"
# A unix socket path holds 107 bytes. 90 leaves room for the suffix that ssh adds to its
# control socket while it sets it up; 40 is the longest name below the directory.
MAX_SOCKET_PATH = 90
LONGEST_NAME = 40


def resolve_home(arg: str | Path | None = None) -> Path:
    """Return the absolute home: ``arg``, else BORGCUBE_HOME, else the default."""
    chosen = str(arg) if arg else os.environ.get("BORGCUBE_HOME") or DEFAULT_HOME
    return Path(chosen).expanduser().absolute()


def private_directory(path: Path) -> Path:
    """Make ``path`` a 0700 directory of this user; raises ConfigurationError if it is not."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} is not a directory of this user.",
            next_step="Remove it or choose another home with --home.",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def runtime_dir(home: Path) -> Path:
    """Return the 0700 directory for sockets, short enough for paths below it."""
    usual = home / "run"
    if len(os.fsencode(usual)) + LONGEST_NAME <= MAX_SOCKET_PATH:
        return private_directory(usual)
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return private_directory(Path(tempfile.gettempdir()) / f"borgcube-{os.geteuid()}-{digest}")


def control_endpoint(home: Path) -> str:
    """Return the address the command line talks to."""
    return f"ipc://{runtime_dir(home) / 'control.sock'}"


def bus_endpoint(home: Path) -> str:
    """Return the address events are published on."""
    return f"ipc://{runtime_dir(home) / 'bus.sock'}"


def workers_endpoint(home: Path) -> str:
    """Return the address workers report to."""
    return f"ipc://{runtime_dir(home) / 'workers.sock'}"


def log_dir(home: Path) -> Path:
    """Return the directory of the daemon's and the vaults' logs."""
    return private_directory(home / "logs")


def job_dir(home: Path, job_id: str) -> Path:
    """Return the directory of one job's logs (not created here)."""
    return home / "jobs" / job_id


def engine_state_dir(home: Path, engine: str) -> Path:
    """Return an engine's own directory."""
    private_directory(home / "engines")
    return private_directory(home / "engines" / engine)


def repository_state_dir(engine_dir: Path, identity: str) -> Path:
    """Return the directory of what an engine keeps beside one repository, in the engine's own.

    ``identity`` is that of our record. What a repository says of itself names nothing here, so
    that none can have another's locks, caches or counters.
    """
    private_directory(engine_dir / "repositories")
    return private_directory(engine_dir / "repositories" / identity)


def known_hosts_file(home: Path) -> Path:
    """Return the path of BorgCube's own known_hosts file (it may not exist yet)."""
    return home / "known_hosts"


def init_home(home: Path) -> Path:
    """Make the home with its configuration sample and master key; safe to repeat. Raises
    ConfigurationError when there is no room for it; nothing half written is left."""
    try:
        return _init_home(home)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise ConfigurationError(
            f"{home} cannot be written: {error.strerror}.",
            next_step="Make room there, or make it writable, then run init again.",
        ) from error


def _init_home(home: Path) -> Path:
    from borgcube.core import config, secrets

    private_directory(home)
    for name in ("store", "jobs", "logs", "engines"):
        private_directory(home / name)
    runtime_dir(home)
    sample = home / config.FILE_NAME
    if not sample.exists():
        # Whole or not at all: what there is, is not written again.
        fresh = sample.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.chmod(0o600)
        fresh.write_text(config.sample(), encoding="utf-8")
        fresh.replace(sample)
    if not secrets.key_file(home).exists():
        if any((home / "store").iterdir()):
            raise ConfigurationError(
                f"The master key {secrets.key_file(home)} is missing, but a store exists.",
                next_step="Put the key back from your copy; a new one cannot open the secrets.",
            )
        secrets.create_master_key(home)
    return home


def require_home(home: Path) -> Path:
    """Return ``home`` if it was initialised; raises ConfigurationError otherwise."""
    if not (home / "store").is_dir():
        raise ConfigurationError(
            f"{home} is not a BorgCube home.", next_step=f"Run: borgcube --home {home} init"
        )
    return home
