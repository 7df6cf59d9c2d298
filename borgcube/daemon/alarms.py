"""Alarms: turns what is in the journal and what the watch found into incidents and messages.

One part of the daemon's main loop. The journal is read by number and the number kept in the
transaction of what it led to: an event counts once, however often the daemon dies. Events that
lead to nothing cost no transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from borgcube.core import notices, rules
from borgcube.core.alarms import Signal, counted, signals_of
from borgcube.core.config import Config
from borgcube.core.events import Envelope
from borgcube.core.notifiers import DIGEST
from borgcube.core.registry import Registry
from borgcube.core.secrets import MasterKey
from borgcube.core.store import Root, Store
from borgcube.daemon import outbox
from borgcube.daemon.courier import Courier, server_name, utc_now
from borgcube.daemon.incidents import Desk, remind, take
from borgcube.daemon.outbox import iso
from borgcube.daemon.watch import Due, Found, Reminder, Watch

LOG = logging.getLogger(__name__)
READ_S = 1.0
BATCH = 500
FINDINGS = 100  # in one transaction
CURSOR = "alarms_seq"


class Alarms:
    """Incidents, messages, and the watch; see ``daemon/main.py``."""

    def __init__(
        self, config: Config, store: Store, registry: Registry, keys: MasterKey, *,
        doctor: Callable[[], list[dict[str, str]]],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:  # fmt: skip
        self._store, self._clock = store, clock
        self.server = server_name(config)
        self.courier = Courier(config, store, registry, keys, clock=clock)
        self.watch = Watch(config, store, registry, doctor=doctor, clock=clock,
                           server=self.server)  # fmt: skip
        self._seq = 0
        self._heard = 0
        self._read_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether something is on its way that ends soon."""
        return self.courier.busy

    def hear(self, envelope: Envelope) -> None:
        """Take note that there is a new event; it is read from the journal later."""
        if envelope.seq is not None:
            self._heard = max(self._heard, envelope.seq)

    def start(self) -> None:
        """Take up what the last daemon left, and begin to watch."""
        self.courier.take_up()
        with self._store.transact() as root:
            self._seq, self._heard = int(root.settings[CURSOR]), root.journal.last
        self.watch.start()

    def step(self) -> None:
        """Do what can be done now; never waits."""
        if time.monotonic() >= self._read_at:
            self._read_at = time.monotonic() + READ_S
            if self._heard > self._seq:
                self.read_journal()
            self.take_findings()
        self.courier.step()

    def desk(self, root: Root) -> Desk:
        """Return what a unit of work about incidents needs."""
        return Desk(root, self._clock(), self.server)

    def read_journal(self) -> None:
        """Take in the next events of the journal."""
        with self._store.transact() as root:
            batch = root.journal.since(self._seq, BATCH)
            desk = self.desk(root)
            changed = [self._take_event(desk, envelope) for envelope in batch]
            if any(changed):
                root.settings[CURSOR] = batch[-1]["seq"]
        if batch:
            self._seq = batch[-1]["seq"]
        if len(batch) == BATCH:
            self._read_at = 0.0
        if any(changed):
            self.courier.wake()

    @staticmethod
    def _take_event(desk: Desk, envelope: dict[str, Any]) -> bool:
        changed = False
        for key, amount in counted(envelope):
            desk.root.counters[key] = desk.root.counters.get(key, 0) + amount
            changed = True
        for signal in signals_of(envelope):
            changed = take(desk, signal) or changed
        for rule in desk.rules:
            if rules.wants_event(rule, envelope):
                item = {"what": notices.EVENT, **envelope}
                outbox.post(desk.root, rule, item, now=desk.now, server=desk.server)
                changed = True
        return changed

    def take_findings(self) -> None:
        """Take in what the watch found."""
        found = self.watch.found(FINDINGS)
        if not found:
            return
        with self._store.transact() as root:
            desk = self.desk(root)
            changed = [self._take_finding(desk, one) for one in found]
        if len(found) == FINDINGS:
            self._read_at = 0.0
        if any(changed):
            self.courier.wake()

    @staticmethod
    def _take_finding(desk: Desk, found: Found) -> bool:
        if isinstance(found, Signal):
            return take(desk, found)
        if isinstance(found, Reminder):
            return remind(desk, found.incident, found.rule)
        return _queue_letter(desk, found)

    def close(self) -> None:
        """End the watch, and the attempts that are on their way."""
        self.watch.close()
        self.courier.close()


def _queue_letter(desk: Desk, due: Due) -> bool:
    """Queue a letter, unless it was queued already or is not wanted any more."""
    rule = next((rule for rule in desk.rules if rule.name == due.rule), None)
    if rule is None or rule.disabled or not rule.digest or rule.next_digest_at != due.at:
        return False
    outbox.post_letter(
        desk.root, kind=DIGEST, channel=rule.channel, rule=rule.name, letter=due.letter,
        now=desk.now, severity=due.severity,
    )  # fmt: skip
    rule.next_digest_at = iso(rules.next_letter(rule, desk.now))
    return True
