"""Everything else, through the library Apprise: chat, push services, SMS gateways and more.

Apprise is imported only when a message is delivered or an address checked; it brings a
hundred modules.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from borgcube.core.errors import InvalidInput
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.notifiers import DeliveryFailed, Message
from borgcube.core.texts import _

MAX_BODY = 32_000
# These act on this server itself: its desktop, its log, or programs that it runs.
LOCAL = frozenset(
    {"dbus", "qt", "glib", "kde", "gnome", "macosx", "windows", "growl", "syslog", "rsyslog",
     "smpp"}
)  # fmt: skip


def _schema(address: str) -> str:
    return address.partition("://")[0].strip().lower()


def _apprise(addresses: Sequence[str]) -> Any:
    """Return an Apprise with these addresses; raises InvalidInput for one it cannot use."""
    import apprise

    # Nothing is kept on disk, no plugin files are looked for, and tokens are masked in what
    # Apprise says.
    asset = apprise.AppriseAsset(
        app_id="BorgCube", app_desc="BorgCube", app_url="", secure_logging=True,
        async_mode=False, plugin_paths=[], storage_mode=apprise.PersistentStoreMode.MEMORY,
    )  # fmt: skip
    made = apprise.Apprise(asset=asset)
    for address in addresses:
        if not made.add(address):
            raise InvalidInput(
                f"Apprise does not know what to do with the address that begins with "
                f"{_schema(address)[:20]}://.", field="addresses",
                next_step="Its manual has the form of each service's address.",
            )  # fmt: skip
    return made


class AppriseNotifier:
    """Sends through any service that Apprise knows."""

    name = "apprise"
    title = _("Apprise (chat, push, SMS)")
    heartbeat = False

    def fields(self) -> Sequence[Field]:
        """Return the options."""
        return [
            Field("addresses", _("Address"), "password", required=True, autocomplete="off",
                  placeholder="ntfy://example.org/topic",
                  help=_("An address of Apprise; several with a space between them. It is kept"
                  " like a password, because it holds tokens.")),
        ]  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse addresses that Apprise cannot use, and services that act on this server."""
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        for address in options["addresses"].split():
            schema = _schema(address)
            if "://" not in address or schema in LOCAL:
                raise InvalidInput(f"{schema[:20]!r} is not a service that can be used here.",
                                   field="addresses")  # fmt: skip
        _apprise(options["addresses"].split())

    def deliver(self, message: Message, options: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one message; raises DeliveryFailed."""
        import apprise

        logger = logging.getLogger("apprise")
        kept = _Kept()
        logger.addHandler(kept)
        logger.setLevel(logging.WARNING)
        kinds = {"error": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
        kind = kinds.get(message.severity, apprise.NotifyType.INFO)
        try:
            went = _apprise(options["addresses"].split()).notify(
                title=message.subject, body=message.text[:MAX_BODY], notify_type=kind,
                body_format=apprise.NotifyFormat.TEXT,
            )  # fmt: skip
        finally:
            logger.removeHandler(kept)
        if not went:
            raise DeliveryFailed(f"Apprise could not deliver it: {kept.said}",
                                 next_step="Check the address of the channel.")  # fmt: skip
        return "taken by Apprise's service"


class _Kept(logging.Handler):
    """Keeps the last thing that Apprise complained of; it masks secrets in it."""

    said = "it gave no reason."

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


@hookimpl
def register_notifiers() -> list[Any]:
    """Offer Apprise."""
    return [AppriseNotifier()]
