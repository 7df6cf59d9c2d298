"""The courier: takes messages from the queue and has them delivered, each attempt in a process
of its own, so that nothing a mail server or a library does can hold the daemon up.

A message is noted as being sent before the attempt and as sent after it. When the daemon dies
in between, the next one sends it again with the same key: at least once, and recognisable.
Order is kept within a channel; a channel that fails waits, twice as long each time.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from borgcube.core import events, events_notices, letters, notices
from borgcube.core.alarms import Signal
from borgcube.core.config import Config
from borgcube.core.errors import BorgCubeError
from borgcube.core.notifiers import HEARTBEAT, NOTICE, TEST, WARNING, Message
from borgcube.core.registry import Registry
from borgcube.core.rules import retry_delay_s
from borgcube.core.secrets import MasterKey
from borgcube.core.store import Root, Store
from borgcube.daemon import outbox
from borgcube.daemon.incidents import OPEN, Desk, take
from borgcube.daemon.outbox import FAILED, QUEUED, SENDING, SENT, iso
from borgcube.daemon.spawn import give, spawn

LOG = logging.getLogger(__name__)
AT_ONCE = 3
LOOK_S = 1.0
IDLE_LOOK_S = 30.0
KILL_AFTER_S = 5.0  # beyond what the notifier was given
STUBBORN = 3  # attempts after which a message lets others pass
FAILING = 3  # failures in a row that make an incident
MAX_RESULT = 64 * 1024


def secrets_context(channel: str) -> str:
    """Return what a channel's sealed secrets are tied to."""
    return f"channel {channel}"


def server_name(config: Config) -> str:
    """Return what messages call this server."""
    return letters.one_line(config.notify.server_name or socket.gethostname(), 80)


def message_of(delivery: Any, *, config: Config, server_id: str, zone: str) -> Message:
    """Return a delivery as the message that goes out."""
    server, url = server_name(config), config.console.url.rstrip("/")
    if delivery.kind == NOTICE:
        letter = notices.notice(
            delivery.items, server=server, url=url, zone=zone, rule=delivery.rule,
            more=delivery.more,
        )  # fmt: skip
    else:
        letter = letters.Letter.from_data(delivery.letter)
    return Message(
        key=delivery.key, kind=delivery.kind, severity=delivery.severity,
        subject=delivery.subject, text=letters.as_text(letter), html=letters.as_html(letter),
        at=delivery.created_at, server=server, server_id=server_id, url=url,
        items=tuple(delivery.items),
    )  # fmt: skip


@dataclass
class Attempt:
    """A running attempt; ``delivery`` is empty for a sign of life."""

    channel: str
    delivery: str
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    kill_at: float
    killed: bool = False

    def result(self, timeout_s: float) -> tuple[bool, str]:
        """Return whether it went well, and what was said."""
        if self.killed:
            return False, f"There was no answer within {timeout_s:.0f} seconds."
        self.out.seek(0)
        try:
            data = json.loads(self.out.read(MAX_RESULT))
            return bool(data["ok"]), letters.one_line(data["said"], 500)
        except (ValueError, KeyError, TypeError):
            return False, f"The delivery process ended with code {self.process.returncode}."


class Courier:
    """Sends what is queued. All methods run in the daemon's main thread and never wait."""

    def __init__(
        self, config: Config, store: Store, registry: Registry, keys: MasterKey, *,
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._config, self._store, self._registry, self._keys = config, store, registry, keys
        self._clock = clock
        self._running: dict[str, Attempt] = {}  # by channel: one at a time each
        self._look_at = 0.0
        self._owed: list[tuple[str, str, str]] = []  # attempts that could not even begin
        self._beat_at: dict[str, float] = {}
        self.publish: Callable[[events.Envelope], None] = lambda envelope: None

    @property
    def busy(self) -> bool:
        """Whether an attempt is on its way."""
        return bool(self._running or self._owed)

    def wake(self) -> None:
        """Look at the queue at the next step."""
        self._look_at = 0.0

    def take_up(self) -> None:
        """Queue again what a daemon that died was sending."""
        with self._store.transact() as root:
            for delivery in root.deliveries.oldest("state", SENDING):
                root.deliveries.change(delivery, state=QUEUED)

    def step(self) -> None:
        """Do what can be done now."""
        while self._owed:
            channel, delivery, why = self._owed[0]
            self._record(channel, delivery, False, why)
            self._owed.pop(0)
        for channel, attempt in list(self._running.items()):
            self._look_after(channel, attempt)
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_S
            self._start_due()
            self._start_beats()

    # Starting

    def _start_due(self) -> None:
        now = self._clock()
        at = iso(now)
        with self._store.transact() as root:
            queued = list(root.deliveries.oldest("state", QUEUED))
            if not queued:
                self._look_at = time.monotonic() + IDLE_LOOK_S
                return
            queued.sort(key=lambda one: one.attempts >= STUBBORN)  # stable: oldest first
            busy = {*self._running, *(channel for channel, _, _ in self._owed)}
            chosen: dict[str, Any] = {}
            channels: dict[str, Any] = {}
            for delivery in queued:
                name = delivery.channel
                if name in chosen or name in busy or delivery.due_at > at:
                    continue
                if name not in channels:
                    channels[name] = root.channels.find("name", name)
                channel = channels[name]
                if channel is None:
                    outbox.give_up(root, delivery, error="There is no such channel.", now=now)
                elif delivery.kind == TEST or not (channel.disabled or channel.not_before > at):
                    chosen[name] = delivery
            orders: dict[str, tuple[str, Any]] = {}
            for name, delivery in chosen.items():
                if len(self._running) + len(orders) >= AT_ONCE:
                    break
                root.deliveries.change(delivery, state=SENDING)
                delivery.attempts += 1
                delivery.tried_at = at
                orders[name] = (delivery.id, self._order(root, channels[name], delivery))
        for name, (delivery_id, order) in orders.items():
            self._spawn(name, delivery_id, order)

    def _order(self, root: Root, channel: Any, delivery: Any) -> dict[str, Any] | str:
        """Return what the process needs, or why it cannot be started."""
        rule = root.rules.find("name", delivery.rule) if delivery.rule else None
        message = message_of(
            delivery, config=self._config, server_id=str(root.settings["server_id"]),
            zone=rule.zone if rule is not None else "UTC",
        )  # fmt: skip
        return self._order_for(channel, message)

    def _order_for(self, channel: Any, message: Message) -> dict[str, Any] | str:
        try:
            plugin = self._registry.owner_of("register_notifiers", channel.notifier)
            options = dict(channel.options)
            if channel.secrets:
                context = secrets_context(channel.name)
                options.update(json.loads(self._keys.unseal(channel.secrets, context=context)))
        except KeyError:
            return f"There is no notifier {channel.notifier}; see: borgcube plugins"
        except BorgCubeError as error:
            return str(error)
        return {"plugin": plugin, "notifier": channel.notifier, "options": options,
                "message": message.as_data(),
                "timeout_s": self._config.notify.timeout_seconds}  # fmt: skip

    def _spawn(self, channel: str, delivery_id: str, order: dict[str, Any] | str) -> None:
        if isinstance(order, str):
            self._owed.append((channel, delivery_id, order))
            return
        out = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the attempt
        try:
            with open(os.devnull, "wb") as nothing:
                process = spawn(
                    [sys.executable, "-P", "-m", "borgcube.daemon.deliver"],
                    stdout=out, stderr=nothing,
                )  # fmt: skip
            give(process, json.dumps(order).encode())
        except OSError as error:
            out.close()
            self._owed.append((channel, delivery_id, f"No process could be started: {error}."))
            return
        limit = self._config.notify.timeout_seconds + KILL_AFTER_S
        self._running[channel] = Attempt(
            channel, delivery_id, process, out, time.monotonic() + limit
        )

    # Ending

    def _look_after(self, channel: str, attempt: Attempt) -> None:
        if attempt.process.poll() is None:
            if time.monotonic() >= attempt.kill_at and not attempt.killed:
                attempt.killed = True
                attempt.process.kill()
            return
        ok, said = attempt.result(self._config.notify.timeout_seconds)
        self._record(channel, attempt.delivery, ok, said)
        # Only now: when the store does not take it, it is recorded at a later step.
        del self._running[channel]
        attempt.out.close()
        self.wake()

    def _record(self, channel_name: str, delivery_id: str, ok: bool, said: str) -> None:
        now = self._clock()
        sent: list[events.Event] = []
        with self._store.transact() as root:
            channel = root.channels.find("name", channel_name)
            delivery = root.deliveries.find("id", delivery_id) if delivery_id else None
            if delivery is not None:
                if ok:
                    root.deliveries.change(delivery, state=SENT)
                    delivery.ended_at, delivery.receipt, delivery.error = iso(now), said, ""
                    sent.append(events_notices.NotificationSent(
                        delivery=delivery.id, channel=channel_name, kind=delivery.kind
                    ))  # fmt: skip
                else:
                    self._put_back(root, delivery, said, now)
                key = ("deliveries", channel_name, "sent" if ok else "failed")
                root.counters[key] = root.counters.get(key, 0) + 1
                outbox.forget_old(root)
            if channel is not None:
                self._note(root, channel, ok, said, now)
        for event in sent:
            self.publish(events.Envelope.of(event))
        if not ok:
            LOG.warning("channel %s: %s", channel_name, said)

    def _put_back(self, root: Root, delivery: Any, said: str, now: datetime) -> None:
        delivery.error = said
        since = datetime.fromisoformat(delivery.created_at)
        if delivery.kind == TEST:
            outbox.give_up(root, delivery, error=said, now=now)
        elif (
            now - since >= timedelta(hours=self._config.notify.give_up_hours)
            and delivery.attempts >= STUBBORN
        ):
            outbox.give_up(root, delivery, error=said, now=now)
            root.record(events_notices.NotificationFailed(
                delivery=delivery.id, channel=delivery.channel, kind=delivery.kind,
                attempts=delivery.attempts, error=said,
            ))  # fmt: skip
        else:
            root.deliveries.change(delivery, state=QUEUED)

    def _note(self, root: Root, channel: Any, ok: bool, said: str, now: datetime) -> None:
        """Note how a channel does, and whether that is a problem."""
        desk = Desk(root, now, server_name(self._config))
        key = f"channel-failing:{channel.name}"
        if ok:
            channel.failures, channel.not_before, channel.last_ok_at = 0, "", iso(now)
            take(desk, Signal(key, "channel-failing", over=True,
                              reason="A message was delivered."))  # fmt: skip
            return
        channel.failures += 1
        channel.last_error_at, channel.last_error = iso(now), said
        delay = retry_delay_s(channel.failures, self._config.notify.retry_seconds)
        channel.not_before = iso(now + timedelta(seconds=delay))
        if channel.failures == FAILING:
            take(desk, Signal(
                key, "channel-failing", severity=WARNING, standing=True,
                title=f"Channel {channel.name} does not deliver", message=said,
                next_step=f"See: borgcube notify log --channel {channel.name}",
            ))  # fmt: skip

    # Signs of life

    def _start_beats(self) -> None:
        watchers = {
            name for name, notifier in self._registry.notifiers.items()
            if getattr(notifier, "heartbeat", False)
        }  # fmt: skip
        if not watchers:
            return
        now = self._clock()
        orders = {}
        with self._store.transact() as root:
            for channel in root.channels.newest(1000):
                if channel.notifier not in watchers or channel.disabled:
                    continue
                if not self._beat_is_due(channel) or len(self._running) >= AT_ONCE:
                    continue
                if channel.options.get("silent_in_trouble") and self._in_trouble(root):
                    continue
                orders[channel.name] = self._order_for(channel, Message(
                    key=os.urandom(16).hex(), kind=HEARTBEAT, severity="info",
                    subject="alive", text="alive\n", at=iso(now),
                    server=server_name(self._config), server_id=str(root.settings["server_id"]),
                ))  # fmt: skip
        for name, order in orders.items():
            self._spawn(name, "", order)
        next_beat = min(self._beat_at.values(), default=self._look_at)
        self._look_at = min(self._look_at, next_beat)

    def _beat_is_due(self, channel: Any) -> bool:
        every_s = 60.0 * max(1, int(channel.options.get("every_minutes") or 5))
        due = self._beat_at.get(channel.name, 0.0)
        if channel.name in self._running or time.monotonic() < due:
            return False
        self._beat_at[channel.name] = time.monotonic() + every_s
        return True

    @staticmethod
    def _in_trouble(root: Root) -> bool:
        return any(one.severity == "error" for one in root.incidents.newest(1000, state=OPEN))

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Let attempts end that end soon; what does not is sent again by the next daemon."""
        deadline = time.monotonic() + timeout_s
        while self._running and time.monotonic() < deadline:
            for channel, attempt in list(self._running.items()):
                self._look_after(channel, attempt)
            time.sleep(0.05)
        for attempt in self._running.values():
            attempt.process.kill()
            attempt.process.wait()
            attempt.out.close()


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


__all__ = ["FAILED", "Courier", "secrets_context", "server_name", "utc_now"]
