"""The configuration: one TOML file in the home, read into frozen dataclasses.

The schema below is the only description; the commented sample is rendered from it.
"""

from __future__ import annotations

import tomllib
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from borgcube.core.errors import ConfigurationError

FILE_NAME = "borgcube.toml"


def _key(default: Any, description: str, *, least: int | None = None) -> Any:
    return field(default=default, metadata={"description": description, "least": least})


@dataclass(frozen=True)
class StoreConfig:
    """Where the object store is."""

    uri: str = _key("", "zodburi address; empty means a FileStorage in the home directory")
    pack: bool = _key(True, "pack the store's file when it has grown, once a day at most")


@dataclass(frozen=True)
class JobsConfig:
    """How jobs run."""

    max_running: int = _key(4, "how many jobs may run at the same time", least=1)
    log_max_bytes: int = _key(10_000_000, "largest size of one job's log file", least=10_000)
    keep_days: int = _key(365, "forget jobs that ended so many days ago, with their logs", least=31)
    keep_most: int = _key(2_000_000, "and the oldest when there are more than this", least=1000)
    unfenced: bool = _key(
        False, "where this server can build no fence, restore and drill here without one"
    )


@dataclass(frozen=True)
class RepositoriesConfig:
    """Where repositories may be."""

    roots: tuple[str, ...] = _key(
        (), "directories below which console and API may make and take in repositories; none"
        " means that only administrators do, anywhere but in the home",
    )  # fmt: skip


@dataclass(frozen=True)
class JournalConfig:
    """The list of events."""

    keep_days: int = _key(365, "forget events older than this", least=7)
    keep_most: int = _key(1_000_000, "and the oldest when there are more than this", least=10_000)


@dataclass(frozen=True)
class AuditConfig:
    """The audit trail."""

    keep_days: int = _key(1100, "forget entries older than this", least=31)
    keep_most: int = _key(1_000_000, "and the oldest when there are more than this", least=10_000)


@dataclass(frozen=True)
class VaultConfig:
    """The processes that hold repositories open."""

    idle_seconds: int = _key(60, "end a vault that had no job for this long", least=0)
    start_seconds: int = _key(120, "how long a vault may take to start", least=1)
    hang_seconds: int = _key(
        300,
        "give a vault up that has stood still for this long, as on a disk that hangs",
        least=3,
    )
    partial_days: int = _key(
        14, "days after which chunks of a backup that was never finished are given up", least=1
    )


@dataclass(frozen=True)
class LogConfig:
    """The daemon's own log."""

    max_bytes: int = _key(10_000_000, "rotate the daemon's log at this size", least=10_000)
    keep: int = _key(5, "how many rotated log files to keep", least=1)


@dataclass(frozen=True)
class PluginsConfig:
    """Which plugins to use."""

    disabled: tuple[str, ...] = _key((), "plugins not to load")
    required: tuple[str, ...] = _key((), "plugins without which the daemon does not start")


@dataclass(frozen=True)
class DaemonConfig:
    """The daemon itself."""

    grace_seconds: int = _key(10, "how long running jobs may take to stop", least=0)


@dataclass(frozen=True)
class ConsoleConfig:
    """The web console."""

    enabled: bool = _key(False, "serve the console")
    listen: str = _key("127.0.0.1:8420", "address and port to listen on")
    certificate: str = _key("", "TLS certificate chain (PEM); empty means plain HTTP")
    key: str = _key("", "the certificate's private key (PEM)")
    url: str = _key("", "address people use, such as https://backup.example.org/borgcube")
    trusted_proxies: tuple[str, ...] = _key(
        (), "addresses or networks of reverse proxies whose X-Forwarded headers count"
    )
    translations: str = _key("", "directory with translations besides those that are installed")
    idle_minutes: int = _key(720, "a login ends after this long without a request", least=5)
    session_days: int = _key(14, "a login ends after this long in any case", least=1)


@dataclass(frozen=True)
class NotifyConfig:
    """Alarms, and how people are told."""

    server_name: str = _key("", "what messages call this server; empty means its host name")
    silence_days: int = _key(
        3, "alarm when a plan without a schedule has no archive for so many days; 0 is never",
        least=0,
    )  # fmt: skip
    disk_free_percent: int = _key(
        5, "alarm when a repository's disk has less free than this; 0 is never", least=0
    )
    look_seconds: int = _key(60, "how often to look for silence and full disks", least=1)
    retry_seconds: int = _key(
        30, "wait after a delivery that failed; twice as long after each, at most an hour", least=1
    )
    give_up_hours: int = _key(72, "give a message up that could not be delivered", least=1)
    timeout_seconds: int = _key(45, "how long one attempt to deliver may take", least=1)


@dataclass(frozen=True)
class Config:
    """The whole configuration; every key has a default."""

    store: StoreConfig = StoreConfig()
    jobs: JobsConfig = JobsConfig()
    repositories: RepositoriesConfig = RepositoriesConfig()
    journal: JournalConfig = JournalConfig()
    audit: AuditConfig = AuditConfig()
    vault: VaultConfig = VaultConfig()
    log: LogConfig = LogConfig()
    plugins: PluginsConfig = PluginsConfig()
    daemon: DaemonConfig = DaemonConfig()
    console: ConsoleConfig = ConsoleConfig()
    notify: NotifyConfig = NotifyConfig()

    def store_uri(self, home: Path) -> str:
        """Return the store's address, the default being a file in the home."""
        return self.store.uri or f"file://{home / 'store' / 'borgcube.fs'}"


def _refuse(path: Path, key: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: {key}: {what}.", next_step="Correct the file; `borgcube init` shows a sample."
    )


def _checked(path: Path, key: str, spec: Field[Any], value: Any) -> Any:
    wanted = spec.default
    if isinstance(wanted, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _refuse(path, key, "must be a list of strings")
        return tuple(value)
    if type(value) is not type(wanted):
        kind = {int: "a whole number", str: "a string", bool: "true or false"}[type(wanted)]
        raise _refuse(path, key, f"must be {kind}")
    least = spec.metadata["least"]
    if least is not None and value < least:
        raise _refuse(path, key, f"must be at least {least}")
    return value


def parse(data: dict[str, Any], *, path: Path) -> Config:
    """Check plain data against the schema; raises ConfigurationError naming file and key."""
    sections: dict[str, Any] = {}
    known: dict[str, Any] = {s.name: type(s.default) for s in fields(Config)}
    for name, values in data.items():
        if name not in known:
            raise _refuse(path, name, "is not a known section")
        if not isinstance(values, dict):
            raise _refuse(path, name, "must be a section")
        specs = {spec.name: spec for spec in fields(known[name])}
        checked = {}
        for key, value in values.items():
            if key not in specs:
                raise _refuse(path, f"{name}.{key}", "is not a known key")
            checked[key] = _checked(path, f"{name}.{key}", specs[key], value)
        sections[name] = known[name](**checked)
    return Config(**sections)


def load(home: Path) -> Config:
    """Read the home's configuration; a missing file means all defaults."""
    path = home / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise _refuse(path, "file", f"cannot be read: {error}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refuse(path, "file", f"is not valid TOML: {error}") from error
    return parse(data, path=path)


def _rendered(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def sample() -> str:
    """Render the schema as a commented TOML file whose every key is commented out."""
    lines = ["# BorgCube's configuration. What is commented out is the default."]
    for section in fields(Config):
        kind = cast(Any, type(section.default))
        lines += ["", f"# {(kind.__doc__ or '').strip()}", f"[{section.name}]"]
        for spec in fields(kind):
            lines.append(f"# {spec.metadata['description']}")
            lines.append(f"# {spec.name} = {_rendered(spec.default)}")
    return "\n".join(lines) + "\n"
