"""Control methods for triggers: secret addresses, each of which starts one plan.

A token is 256 random bits, shown once; the store keeps its digest. Whoever holds it can start
that plan, at most a few times an hour, and learn nothing but whether a job was queued. Each
use is in the journal and in the audit trail, without the token.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from borgcube.core import credentials, events, lifecycle
from borgcube.core import events_scheduling as told
from borgcube.core.errors import AccessDenied, BorgCubeError, InvalidInput
from borgcube.core.model import Job, Trigger
from borgcube.core.model.names import check_name
from borgcube.core.model.scheduling import TRIGGER_USES
from borgcube.daemon import checks
from borgcube.daemon.control import method
from borgcube.daemon.orders import find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MARK = "bct_"
SPAN_S = 3600.0
WRONG, WRONG_SPAN_S = 20, 600.0
MAX_KEPT = 10_000
MAX_DAYS = 3650


class TooOften(BorgCubeError):
    """Something was done more often than it may be."""


class Rate:
    """At most ``most`` uses within ``span_s`` seconds for each key; in memory, bounded."""

    def __init__(
        self, most: int, span_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._span_s, self._clock = most, span_s, clock
        self._uses: OrderedDict[str, deque[float]] = OrderedDict()

    def allows(self, key: str) -> bool:
        """Return whether a further use is within the rate."""
        uses = self._uses.get(key, deque())
        while uses and uses[0] <= self._clock() - self._span_s:
            uses.popleft()
        return len(uses) < self._most

    def count(self, key: str) -> None:
        """Note a use."""
        uses = self._uses.pop(key, deque())
        uses.append(self._clock())
        self._uses[key] = uses
        while len(self._uses) > MAX_KEPT:
            self._uses.popitem(last=False)


class TriggerMethods:
    """trigger.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._uses = Rate(TRIGGER_USES, SPAN_S)
        self._wrong = Rate(WRONG, WRONG_SPAN_S)

    @method("trigger.add")
    def add(self, *, name: str, plan: str, days: int = 0) -> dict[str, Any]:
        """Make a trigger for a plan; ``days`` (0: no end) is how long it is good. The token is
        shown here and never again."""
        check_name(name, what="trigger")
        if not 0 <= days <= MAX_DAYS:
            raise InvalidInput(f"days is 0 to {MAX_DAYS}.", field="days")
        token = credentials.new_token(MARK)
        trigger = Trigger(
            name=name, plan=plan, digest=credentials.digest(token), hint=token[-4:],
            expires_at=credentials.in_the_future(days=days) if days else "",
            created_at=events.now(),
        )  # fmt: skip
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.triggers, name, what="trigger")
            find(root.plans, plan, what="plan")
            root.triggers.add(trigger)
            root.record(told.TriggerAdded(trigger=name, plan=plan))
            return {**trigger.as_data(), "token": token, "path": f"/trigger/{token}"}

    @method("trigger.remove")
    def remove(self, *, name: str) -> dict[str, Any]:
        """Remove a trigger; its address starts nothing any more."""
        with self._daemon.store.transact() as root:
            trigger = find(root.triggers, name, what="trigger")
            root.triggers.remove(trigger)
            root.record(told.TriggerRemoved(trigger=name, plan=trigger.plan))
        return {"removed": name}

    @method("trigger.list")
    def every(self) -> Any:
        """Return all triggers, without their tokens."""
        with self._daemon.store.reading() as root:
            return checks.listed(root.triggers)

    @method("trigger.fire", audited=False)
    def fire(self, *, token: str, address: str = "") -> dict[str, Any]:
        """Queue the plan's backup, or return the job that waits for its turn already."""
        actor = {"user": "", "via": "trigger", "address": address[:100]}
        if not self._wrong.allows(address):
            raise TooOften("Too many wrong addresses.", next_step="Wait ten minutes.")
        with self._daemon.store.reading() as root:
            found = root.triggers.find("digest", credentials.digest(token))
            good = found is not None and not credentials.is_past(found.expires_at)
            name, plan = (found.name, found.plan) if found is not None and good else ("", "")
        if not good:
            self._wrong.count(address)
            self._daemon.audit.note(actor, "trigger.fire", "", refused="No such trigger.")
            raise AccessDenied("There is no such trigger.")
        if not self._uses.allows(name):
            self._daemon.audit.note(actor, "trigger.fire", plan, refused="Too often.")
            raise TooOften(f"This trigger was used {TRIGGER_USES} times within an hour.",
                           next_step="Wait, or give the plan a schedule.")  # fmt: skip
        self._uses.count(name)
        entry = self._daemon.audit.begin(actor, "trigger.fire", {"name": plan})
        with self._daemon.store.transact() as root:
            job_id = self._start(root, plan)
            trigger = root.triggers.find("name", name)
            trigger.last_used_at, trigger.uses = events.now(), trigger.uses + 1
            root.record(told.TriggerFired(
                trigger=name, plan=plan, job=job_id, address=actor["address"]
            ))  # fmt: skip
            root.after_commit(self._daemon.dispatcher.wake)
        self._daemon.audit.end(entry)
        return {"job_id": job_id}

    def _start(self, root: Any, name: str) -> str:
        plan = find(root.plans, name, what="plan")
        for job in self._daemon.dispatcher.open_jobs.look(root)[0]:
            if job.is_backup and job.plan == name and not job.not_before:
                return job.id
        return lifecycle.queue(root, Job(
            type="backup", plan=name, client=plan.client, repository=plan.repository,
            origin="trigger",
        )).id  # fmt: skip
