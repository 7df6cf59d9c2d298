"""A signed webhook, and a heartbeat: an address that is asked for regularly while this server
is well, so that a watcher elsewhere notices when it is not."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from borgcube import __version__
from borgcube.core.errors import InvalidInput
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.notifiers import Message
from borgcube.core.texts import _
from borgcube.plugins.notify_webhook.http import ANYWHERE, PUBLIC, check_url, send
from borgcube.plugins.notify_webhook.signing import signature

MIN_SECRET = 16
AGENT = f"BorgCube/{__version__}"
REACH = Field(
    "reach", _("May reach"), "choice", default=ANYWHERE, group=_("More"),
    choices=((ANYWHERE, _("this server's own networks too")), (PUBLIC, _("public addresses only"))),
    help=_("Link-local addresses, where clouds hand out credentials, are never used."),
)  # fmt: skip
CA_FILE = Field(
    "ca_file", _("Certificate authority"), group=_("More"),
    help=_("A PEM file on this server, if the certificate is not from a public authority."),
)  # fmt: skip


def _check_file(options: Mapping[str, Any]) -> None:
    if options["ca_file"] and not Path(options["ca_file"]).is_file():
        raise InvalidInput(f"There is no file {options['ca_file'][:200]!r} on the server.",
                           field="ca_file")  # fmt: skip


def body_of(message: Message) -> bytes:
    """Return the body of a webhook: the message without its HTML, as JSON in UTF-8."""
    data = message.as_data()
    data.pop("html")
    return json.dumps({"v": 1, **data}, ensure_ascii=False, separators=(",", ":")).encode()


class Webhook:
    """POSTs JSON, signed."""

    name = "webhook"
    title = _("Webhook")
    heartbeat = False

    def fields(self) -> Sequence[Field]:
        """Return the options."""
        return [
            Field("url", _("Address"), required=True, placeholder="https://hooks.example.org/borgcube",
                  help=_("Gets a POST with JSON for each message. Redirects are not followed.")),
            Field("secret", _("Signing secret"), "password", required=True,
                  autocomplete="new-password",
                  help=_("At least 16 characters. The receiver needs it too, to verify that"
                  " messages come from here.")),
            REACH, CA_FILE,
        ]  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse what is no address, and secrets that could be guessed."""
        check_url(options["url"])
        _check_file(options)
        if len(options["secret"]) < MIN_SECRET:
            raise InvalidInput(f"The secret needs at least {MIN_SECRET} characters.",
                               field="secret")  # fmt: skip

    def deliver(self, message: Message, options: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one message; raises DeliveryFailed."""
        body, now = body_of(message), int(time.time())
        status, reason = send(
            "POST", options["url"], body=body, timeout_s=timeout_s, reach=options["reach"],
            ca_file=options["ca_file"], headers={
                "Content-Type": "application/json; charset=utf-8",
                "User-Agent": AGENT, "Accept": "*/*", "Connection": "close",
                "Idempotency-Key": message.key,
                "X-BorgCube-Timestamp": str(now),
                "X-BorgCube-Signature": signature(options["secret"], now, body),
            },
        )  # fmt: skip
        return f"{status} {reason}".strip()


class Heartbeat:
    """Asks for an address regularly, as services that watch for silence want it."""

    name = "heartbeat"
    title = _("Heartbeat")
    heartbeat = True

    def fields(self) -> Sequence[Field]:
        """Return the options."""
        return [
            Field("url", _("Address"), "password", required=True, autocomplete="off",
                  help=_("What the watching service gave you. It is kept like a password, because"
                  " whoever knows it can pretend that this server is alive.")),
            Field("every_minutes", _("Every (minutes)"), "number", default="5", least=1, most=1440),
            Field("method", _("With"), "choice", default="GET",
                  choices=(("GET", "GET"), ("HEAD", "HEAD"), ("POST", "POST"))),
            Field("silent_in_trouble", _("Be silent while a serious problem is open"), "checkbox",
                  default=False, help=_("Then the watching service calls for backups that fail,"
                  " too.")),
            REACH, CA_FILE,
        ]  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse what is no address."""
        check_url(options["url"])
        _check_file(options)

    def deliver(self, message: Message, options: Mapping[str, Any], *, timeout_s: float) -> str:
        """Give one sign of life; raises DeliveryFailed."""
        status, reason = send(
            options["method"], options["url"], timeout_s=timeout_s, reach=options["reach"],
            ca_file=options["ca_file"], body=b"alive" if options["method"] == "POST" else b"",
            headers={"User-Agent": AGENT, "Accept": "*/*", "Connection": "close"},
        )  # fmt: skip
        return f"{status} {reason}".strip()


@hookimpl
def register_notifiers() -> list[Any]:
    """Offer webhook and heartbeat."""
    return [Webhook(), Heartbeat()]
