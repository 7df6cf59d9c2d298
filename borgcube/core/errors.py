"""Errors that reach a person: typed, with an exit code and the next step in words.

Everything raised on purpose derives from :class:`BorgCubeError`. Anything else that
escapes is a bug and is shown as one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class BorgCubeError(Exception):
    """A refusal or failure with one clear message and a next step.

    ``exit_code`` follows the command line: 2 failed or refused, 3 daemon not reachable.
    """

    exit_code = 2

    def __init__(self, message: str, *, next_step: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.field = field  # the parameter at fault, so that a form can say it beside its field

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class ConfigurationError(BorgCubeError):
    """The configuration, the home directory or the master key cannot be used."""


class NotFound(BorgCubeError):
    """No object of that name."""


class Duplicate(BorgCubeError):
    """An object of that name exists already."""


class Conflict(BorgCubeError):
    """Somebody else changed the thing since the caller looked at it."""


class InvalidInput(BorgCubeError):
    """A value from outside does not pass its check."""


class Unreadable(BorgCubeError):
    """What is stored is damaged, or its repository cannot be used now."""


class AccessDenied(BorgCubeError):
    """Credentials are wrong, missing or used up. Says no more than that."""


class TooMany(BorgCubeError):
    """Wrong tries, or tries at once, were too many; the next one has to wait."""


class CodeNeeded(BorgCubeError):
    """The password is right, and a second factor is wanted."""


class StoreError(BorgCubeError):
    """The object store cannot be opened or is newer than this program."""


class DaemonUnreachable(BorgCubeError):
    """No daemon answers on the control socket."""

    exit_code = 3


# The kind of a failure's cause when an archive is in quarantine, and what to do about one.
ARCHIVE_QUARANTINED = "archive-quarantined"
QUARANTINE_NEXT_STEP = (
    "To rewrite what is sound of it: borgcube archive mend {name}. To let it go: borgcube archive "
    "delete {name}"
)


class Problem(StrEnum):
    """Whose problem a failure is."""

    CLIENT = "client"
    NETWORK = "network"
    SERVER = "server"
    REPOSITORY = "repository"
    CONFIGURATION = "configuration"


@dataclass(frozen=True)
class FailureCause:
    """Why a job did not end well.

    ``kind`` is a stable identifier such as ``host-key-changed``; ``message`` says what
    happened and ``next_step`` what to do about it.
    """

    kind: str
    problem: Problem
    message: str
    next_step: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the cause as plain JSON data."""
        return {**asdict(self), "problem": self.problem.value}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> FailureCause:
        """Rebuild a cause from :meth:`as_data`; raises ``KeyError`` or ``ValueError``."""
        return cls(
            kind=str(data["kind"]),
            problem=Problem(data["problem"]),
            message=str(data["message"]),
            next_step=str(data.get("next_step", "")),
        )


@dataclass(frozen=True)
class Violation:
    """What a client did that no honest one does, or that looks the same.

    ``kind`` is a stable word, ``details`` one escaped line of bounded length.
    """

    kind: str
    details: str

    def as_data(self) -> dict[str, str]:
        """Return it as plain JSON data."""
        return {"kind": self.kind, "details": self.details}


class JobFailed(BorgCubeError):
    """Raised inside a worker to end its job with a typed cause.

    ``violation`` is set when the job fails because of what the client did; the daemon then
    records a ``client.violation`` event with the end of the job.
    """

    def __init__(
        self,
        kind: str,
        problem: Problem,
        message: str,
        *,
        next_step: str = "",
        violation: Violation | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.cause = FailureCause(kind, problem, message, next_step)
        self.violation = violation


class JobCancelled(BorgCubeError):
    """Raised inside a worker when its job was cancelled."""
