"""How people are told: messages, and the contract of notifier plugins.

The daemon keeps channels (a notifier, its options, its sealed secrets) and a durable queue.
Each attempt to deliver runs in a process of its own that is ended when it takes too long, so
a notifier may block, but never the daemon. Pure but for what a plugin does in ``deliver``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.forms import MANY_KINDS, MAX_LINES, MAX_TEXT, SECRET_KINDS, Field

INFO, WARNING, ERROR = "info", "warning", "error"
SEVERITIES = (INFO, WARNING, ERROR)
# What a message is: about problems and events, a letter, a try, or a sign of life.
NOTICE, DIGEST, TEST, HEARTBEAT = "notice", "digest", "test", "heartbeat"


@dataclass(frozen=True)
class Message:
    """One message. ``key`` (32 hexadecimal digits) is the same for every attempt to deliver
    it, so that a receiver can tell a repetition. ``items`` are the incidents and events it is
    about, as plain data; ``url`` is the console's address, empty when it has none."""

    key: str
    kind: str
    severity: str
    subject: str
    text: str
    html: str = ""
    at: str = ""
    server: str = ""
    server_id: str = ""
    url: str = ""
    items: tuple[dict[str, Any], ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "items": list(self.items)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Message:
        """Rebuild from :meth:`as_data`; raises ``KeyError`` or ``TypeError``."""
        return cls(**{**data, "items": tuple(data["items"])})


class DeliveryFailed(BorgCubeError):
    """A message was not delivered; it is tried again later. The words reach people and the
    delivery log, so they must hold no secret."""


class Notifier(Protocol):
    """A way to tell somebody, registered by name.

    ``fields`` describe its options (``core.forms.Field``); those of kind ``password`` are
    secrets, which are sealed in the store and never shown again. ``heartbeat`` is true for a
    way that only tells a watcher that this server is alive: it has a field
    ``every_minutes``, gets messages of kind ``heartbeat`` and tests, and no rule uses it.
    """

    name: str
    title: str
    heartbeat: bool

    def fields(self) -> Sequence[Field]:
        """Return the options, in the order of the form."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise InvalidInput (``field`` names the option) for options that cannot work.

        They have passed their fields. Must be quick: no name is looked up, nothing is sent.
        """

    def deliver(self, message: Message, options: Mapping[str, Any], *, timeout_s: float) -> str:
        """Deliver one message and return what the other side said, in a line.

        Runs in a process of its own, which is killed soon after ``timeout_s``. Raises
        DeliveryFailed.
        """


def secret_names(notifier: Notifier) -> frozenset[str]:
    """Return the names of the options that are secrets."""
    return frozenset(spec.name for spec in notifier.fields() if spec.kind in SECRET_KINDS)


def checked_options(notifier: Notifier, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a channel, complete and checked; raises InvalidInput.

    ``given`` is plain data from outside. What is left out gets its default.
    """
    specs = {spec.name: spec for spec in notifier.fields()}
    for name in given:
        if name not in specs:
            raise InvalidInput(
                f"{notifier.name} has no option {str(name)[:60]!r}.",
                next_step=f"Its options are: {', '.join(specs)}.",
            )
    options = {name: _checked(spec, given.get(name)) for name, spec in specs.items()}
    notifier.check(options)
    return options


def _refuse(spec: Field, what: str) -> InvalidInput:
    return InvalidInput(f"{spec.label}: {what}", field=spec.name)


def _checked(spec: Field, value: Any) -> Any:
    many = spec.kind == "lines" or spec.kind in MANY_KINDS
    if value is None or value == "":
        value = spec.default
        if many:
            value = list(value) if isinstance(value, list | tuple) else []
    if many:
        return _checked_list(spec, value)
    if spec.kind == "checkbox":
        if value in ("", None):
            return False
        if type(value) is not bool:
            raise _refuse(spec, "this must be true or false.")
        return value
    if spec.kind == "number":
        return _checked_number(spec, value)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _refuse(spec, f"this must be text of at most {MAX_TEXT} characters.")
    if any(not char.isprintable() for char in value):
        raise _refuse(spec, "this must be one line of printable text.")
    if spec.required and not value:
        raise _refuse(spec, "this is needed.")
    if spec.kind == "choice" and value not in {key for key, _ in spec.choices}:
        raise _refuse(spec, f"choose one of {', '.join(key for key, _ in spec.choices)}.")
    return value


def _checked_list(spec: Field, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _refuse(spec, "this must be a list of texts.")
    if len(value) > MAX_LINES or any(len(item) > MAX_TEXT for item in value):
        raise _refuse(spec, f"at most {MAX_LINES} lines of {MAX_TEXT} characters.")
    lines = [item.strip() for item in value if item.strip()]
    if any(not char.isprintable() for line in lines for char in line):
        raise _refuse(spec, "this must be printable text.")
    if spec.required and not lines:
        raise _refuse(spec, "at least one is needed.")
    if spec.kind in MANY_KINDS and not set(lines) <= {key for key, _ in spec.choices}:
        raise _refuse(spec, "choose from the list.")
    return lines


def _checked_number(spec: Field, value: Any) -> int:
    if isinstance(value, str) and value.lstrip("-").isascii() and value.lstrip("-").isdigit():
        value = int(value[:20])
    if type(value) is not int:
        raise _refuse(spec, "this must be a whole number.")
    if spec.least is not None and value < spec.least:
        raise _refuse(spec, f"at least {spec.least}.")
    if spec.most is not None and value > spec.most:
        raise _refuse(spec, f"at most {spec.most}.")
    return int(value)
