"""Mail over SMTP (RFC 5321), with STARTTLS or TLS unless told otherwise.

The body is text and HTML side by side. ``Message-ID`` is made of the message's key, so that
every attempt to deliver one message carries the same, and mail systems drop repetitions.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any

from borgcube.core.errors import InvalidInput
from borgcube.core.forms import Field
from borgcube.core.hookspecs import hookimpl
from borgcube.core.letters import one_line
from borgcube.core.notifiers import DeliveryFailed, Message
from borgcube.core.texts import _

STARTTLS, TLS, PLAIN = "starttls", "tls", "none"
PORTS = {STARTTLS: 587, TLS: 465, PLAIN: 25}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _address(text: str, *, field: str) -> Address:
    name, spec = parseaddr(text)
    try:
        if "@" not in spec:
            raise ValueError
        return Address(display_name=name, addr_spec=spec)
    except (ValueError, HeaderParseError, IndexError) as error:
        raise InvalidInput(f"{text[:80]!r} is no mail address.", field=field,
                           next_step="Write it like ops@example.org.") from error  # fmt: skip


def letter_of(message: Message, options: Mapping[str, Any]) -> EmailMessage:
    """Return the mail."""
    mail = EmailMessage(policy=SMTP)
    sender = _address(options["sender"], field="sender")
    mail["From"] = sender
    mail["To"] = [_address(text, field="recipients") for text in options["recipients"]]
    mail["Subject"] = one_line(message.subject)
    sent = datetime.fromisoformat(message.at) if message.at else datetime.now(UTC)
    mail["Date"] = format_datetime(sent)
    mail["Message-ID"] = f"<{message.key}@{message.server_id or 'borgcube'}.borgcube.invalid>"
    # RFC 3834: nobody's holiday notice shall answer.
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-BorgCube-Kind"] = message.kind
    mail["X-BorgCube-Severity"] = message.severity
    if message.severity == "error":
        mail["Importance"] = "high"
    mail.set_content(message.text)
    if message.html:
        mail.add_alternative(message.html, subtype="html")
    return mail


class Mail:
    """Sends mail through a server of yours."""

    name = "mail"
    title = _("Mail (SMTP)")
    heartbeat = False

    def fields(self) -> Sequence[Field]:
        """Return the options."""
        return [
            Field("host", _("Mail server"), required=True, placeholder="smtp.example.org"),
            Field("security", _("Connection"), "choice", default=STARTTLS, choices=(
                (STARTTLS, _("STARTTLS (port 587)")), (TLS, _("TLS from the start (port 465)")),
                (PLAIN, _("no encryption (port 25)")),
            ), help=_("The server's certificate is always checked; what cannot be encrypted as"
               " chosen is not sent.")),
            Field("port", _("Port"), "number", default="0", least=0, most=65535,
                  help=_("0 means the usual one.")),
            Field("user", _("User"), help=_("Empty for a server that asks for none.")),
            Field("password", _("Password"), "password", autocomplete="new-password"),
            Field("sender", _("From"), required=True, placeholder="backup@example.org"),
            Field("recipients", _("To"), "lines", required=True, placeholder="ops@example.org",
                  help=_("One address a line.")),
            Field("ca_file", _("Certificate authority"), group=_("More"),
                  help=_("A PEM file on this server, if the mail server's certificate is not from"
                  " a public authority.")),
        ]  # fmt: skip

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse addresses that are none, and passwords in the clear."""
        host = options["host"]
        if any(char.isspace() for char in host) or "/" in host or "@" in host:
            raise InvalidInput(f"{host[:80]!r} is no host name.", field="host")
        _address(options["sender"], field="sender")
        for text in options["recipients"]:
            _address(text, field="recipients")
        if options["ca_file"] and not Path(options["ca_file"]).is_file():
            raise InvalidInput(f"There is no file {options['ca_file'][:200]!r} on the server.",
                               field="ca_file")  # fmt: skip
        if bool(options["user"]) != bool(options["password"]):
            raise InvalidInput("A user needs a password, and the other way round.",
                               field="password")  # fmt: skip
        if options["password"] and options["security"] == PLAIN and host not in LOOPBACK:
            raise InvalidInput("A password is not sent without encryption.", field="security",
                               next_step="Choose STARTTLS or TLS.")  # fmt: skip

    def deliver(self, message: Message, options: Mapping[str, Any], *, timeout_s: float) -> str:
        """Send one mail; raises DeliveryFailed."""
        try:
            return self._send(letter_of(message, options), options, timeout_s)
        except smtplib.SMTPRecipientsRefused as error:
            refused = "; ".join(f"{who}: {_said(code, text)}"
                                for who, (code, text) in error.recipients.items())  # fmt: skip
            raise DeliveryFailed(f"The mail server takes no recipient: {refused}") from error
        except smtplib.SMTPAuthenticationError as error:
            raise DeliveryFailed(
                f"The login was refused: {_said(error.smtp_code, error.smtp_error)}",
                next_step="Check user and password of the channel.",
            ) from error
        except smtplib.SMTPResponseException as error:
            raise DeliveryFailed(
                f"The mail server refused: {_said(error.smtp_code, error.smtp_error)}"
            ) from error
        except ssl.SSLError as error:
            raise DeliveryFailed(
                f"No safe connection to {options['host']}: {_tls(error)}",
                next_step="Check the connection's kind, port, and the certificate.",
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryFailed(
                f"{options['host']} was not reached or broke off: {_words(error)}",
                next_step="Is the mail server up, are host and port right?",
            ) from error

    @staticmethod
    def _send(mail: EmailMessage, options: Mapping[str, Any], timeout_s: float) -> str:
        host, security = options["host"], options["security"]
        port = options["port"] or PORTS[security]
        context = ssl.create_default_context(cafile=options["ca_file"] or None)
        server: smtplib.SMTP
        if security == TLS:
            server = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=timeout_s)
        with server:
            if security == STARTTLS:
                server.starttls(context=context)
            if options["user"]:
                server.login(options["user"], options["password"])
            refused = server.send_message(mail)
        recipients = len(options["recipients"])
        if refused:
            # The others have it; sending it again would reach them twice.
            names = ", ".join(sorted(refused))
            return f"taken for {recipients - len(refused)} of {recipients}; refused: {names}"
        return f"taken by {host} for {recipients} recipient{'' if recipients == 1 else 's'}"


def _said(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return one_line(f"{code} {words}", 300)


def _tls(error: ssl.SSLError) -> str:
    return one_line(getattr(error, "verify_message", "") or error.reason or error, 200)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time."
    return one_line(getattr(error, "strerror", None) or error or type(error).__name__, 200) + "."


@hookimpl
def register_notifiers() -> list[Any]:
    """Offer mail."""
    return [Mail()]
