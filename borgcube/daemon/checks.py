"""What people may set on clients, plans and repositories: the checks that ``add`` and
``set`` share. Values come from the control socket with their types checked, nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from borgcube.core import events, lifecycle
from borgcube.core.errors import Conflict, Duplicate, InvalidInput, NotFound
from borgcube.core.hostkeys import check_host
from borgcube.core.model.names import check_name
from borgcube.core.model.table import Table
from borgcube.core.untrusted import words
from borgcube.core.versions import version_of

MAX_LISTED = 1000
MAX_NUMBER = 1 << 62
MAX_COMMAND = 4000  # characters
MAX_COMMAND_S = 7 * 86_400
LIMITS = ("max_job_bytes", "max_total_bytes", "max_files", "max_duration_s", "max_sessions")
FILES_CACHES = ("ctime,size", "mtime,size", "disabled")
LISTS = ("paths", "excludes", "patterns", "exclude_if_present")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a caller of ``set`` gave: everything that is not None.

    Raises InvalidInput when that is nothing.
    """
    found = {name: value for name, value in values.items() if value is not None}
    if not found:
        raise InvalidInput("Nothing to change was given.", next_step="See the command's --help.")
    return found


def check_version(record: Any, version: str, *, what: str) -> None:
    """Raise Conflict when a record is no longer what the caller saw.

    Called in the transaction of the change. An empty ``version`` does not care.
    """
    if version and version != version_of(record.settings_of(record.as_data())):
        raise Conflict(f"The {what} {record.name} was changed since you looked at it.",
                       next_step="Look at it again, then decide.")  # fmt: skip


def change(table: Table, record: Any, values: Mapping[str, Any]) -> list[str]:
    """Set fields of a record; return the names of those that really changed."""
    stored = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    changed = {k: v for k, v in stored.items() if getattr(record, k) != v}
    table.change(record, **changed)
    return sorted(changed)


def refuse_duplicate(table: Any, name: str, *, what: str) -> None:
    """Raise Duplicate when the name is taken."""
    if table.find("name", name) is not None:
        raise Duplicate(f"There is a {what} {name!r} already.", field="name",
                        next_step="Choose another name.")  # fmt: skip


def listed(
    table: Any, *, limit: int = MAX_LISTED, after: str = "", find: str = ""
) -> list[dict[str, Any]]:
    """Return up to ``limit`` records above the name ``after`` in the order of their names,
    those with the letters ``find`` in what is searched."""
    names = table.named(max(0, min(limit, MAX_LISTED)), after=after, find=find)
    return [table.find("name", name).as_data() for name in names]


def refuse_in_use(root: Any, *, what: str, name: str) -> None:
    """Raise InvalidInput while a queued or running job is of that client, plan or repository."""
    for state in (lifecycle.QUEUED, *lifecycle.ACTIVE):
        for job in root.jobs.newest(1, **{"state": state, what: name}):
            raise InvalidInput(
                f"Job {job.id} of {what} {name} is {job.state}.",
                next_step=f"Wait for its end, or: borgcube job cancel {job.id}",
            )


def record_change(root: Any, kind: Any, name: str, fields: list[str], *, what: str) -> None:
    """Journal which fields of a thing changed, if any did."""
    if fields:
        event: events.Event = kind(**{what: name, "fields": fields})
        root.record(event)


def check_client(data: Mapping[str, Any], *, transports: Collection[str]) -> None:
    """Check all fields of a client; raises NotFound or InvalidInput."""
    check_name(data["name"], what="client")
    if data["domain"]:
        check_name(data["domain"], what="domain")
    if data["network"]:
        check_name(data["network"], what="network")
    if data["transport"] not in transports:
        raise NotFound(
            f"There is no transport {data['transport']!r}.",
            next_step=f"Choose one of: {', '.join(sorted(transports))}.",
        )
    if data["transport"] != "local" and not data["host"]:
        raise InvalidInput("This transport needs a host.", next_step="Give --host.",
                           field="host")  # fmt: skip
    if data["host"]:
        check_host(data["host"])
    for what in ("user", "borg"):
        # A leading dash would be read as an option by the programs it is given to.
        value = data[what]
        if value.startswith("-") or any(not char.isprintable() for char in value):
            raise InvalidInput(f"{what} {value[:80]!r} is not usable.", field=what)
    if not data["borg"]:
        raise InvalidInput("The path of borg must not be empty.", next_step="Give --borg.",
                           field="borg")  # fmt: skip
    if not 1 <= data["port"] <= 65535:
        raise InvalidInput("port must be between 1 and 65535.", field="port")
    for what in LIMITS:
        check_size(data[what], what=what)


def check_identity(path: str) -> None:
    """Raise InvalidInput when there is no such key file."""
    if path and not Path(path).is_file():
        raise InvalidInput(f"There is no identity file {path!r} on the server.", field="identity")


def check_size(value: int, *, what: str) -> None:
    """Raise InvalidInput for a number that is no limit."""
    if not 0 <= value <= MAX_NUMBER:
        raise InvalidInput(f"{what} must be 0 (no limit) or more.", field=what)


def check_plan(data: Mapping[str, Any]) -> None:
    """Check all fields of a plan but its references; raises InvalidInput."""
    check_name(data["name"], what="plan")
    for what in LISTS:
        for text in data[what]:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidInput(
                    f"{words(text, limit=80)} is not UTF-8, and borg on a client takes no such "
                    "path or pattern.",
                    field=what,
                    next_step="Name the directory above it, or put a ? for each odd byte into a "
                    "pattern. What is below a path may have any name.",
                ) from None
    if not data["paths"]:
        raise InvalidInput("A plan needs at least one path.", next_step="Give --path.",
                           field="paths")  # fmt: skip
    for path in data["paths"]:
        if not path.startswith("/") or any(ord(char) < 32 for char in path):
            raise InvalidInput(f"{path[:80]!r} is not an absolute path.", field="paths")
    for text in (*data["excludes"], *data["patterns"], *data["exclude_if_present"]):
        if not text or any(ord(char) < 32 for char in text):
            raise InvalidInput(f"{text[:80]!r} is not a usable pattern.", field="excludes")
    compression = data["compression"]
    if not compression or compression.startswith("-") or not compression.isprintable():
        raise InvalidInput(f"{compression[:80]!r} is not a compression.", field="compression")
    if data["files_cache"] not in FILES_CACHES:
        raise InvalidInput("files_cache must be ctime,size or mtime,size or disabled.")
    waits = (data["retries"], data["retry_delay_s"], data["upload_ratelimit_kib"])
    if min(waits) < 0 or data["retries"] > 100:
        raise InvalidInput("retries, delay and rate limit must not be negative.")
    if min(data["idle_timeout_s"], data["max_duration_s"]) < 1:
        raise InvalidInput("idle timeout and longest duration must be a second or more.")
    check_commands(data)


def check_commands(data: Mapping[str, Any]) -> None:
    """Check a plan's commands on the client; raises InvalidInput."""
    for what in ("before_command", "after_command"):
        text = data[what]
        if len(text) > MAX_COMMAND or any(ord(char) < 32 and char not in "\n\t" for char in text):
            raise InvalidInput(
                "This is not a usable command: too long, or with control characters.",
                next_step="Put it into a script on the client.", field=what,
            )  # fmt: skip
    if data["before_failure"] not in ("fail", "warn"):
        raise InvalidInput("before_failure must be fail or warn.", field="before_failure")
    if not 1 <= data["command_timeout_s"] <= MAX_COMMAND_S:
        raise InvalidInput(f"The command timeout must be 1 to {MAX_COMMAND_S} seconds.",
                           field="command_timeout_s")  # fmt: skip
