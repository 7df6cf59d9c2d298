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
from borgcube.core.forms import SECRET_KINDS, Field
from borgcube.core.options import checked_value

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
    options = {name: checked_value(spec, given.get(name)) for name, spec in specs.items()}
    notifier.check(options)
    return options
