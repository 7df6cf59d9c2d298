"""Control methods for pauses: what schedules start nothing of for a while, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from borgcube.core import events
from borgcube.core import events_scheduling as told
from borgcube.core.errors import InvalidInput, NotFound
from borgcube.core.model import Pause
from borgcube.core.planning import EVERYTHING, SCOPES, instant
from borgcube.core.store import Root
from borgcube.daemon import checks
from borgcube.daemon.control import method
from borgcube.daemon.orders import find
from borgcube.daemon.scheduler import PAUSED
from borgcube.daemon.timetabling import seconds, stamp

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_REASON = 500


class PauseMethods:
    """pause.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @staticmethod
    def _target(root: Root, scope: str, target: str) -> None:
        if scope not in SCOPES:
            raise InvalidInput(f"{scope[:40]!r} cannot be paused.", field="scope",
                               next_step=f"One of: {', '.join(SCOPES)}.")  # fmt: skip
        if bool(target) != (scope != EVERYTHING):
            raise InvalidInput("Name what is paused, and nothing for everything.", field="target")
        if target:
            table = root.repositories if scope == "repository" else getattr(root, f"{scope}s")
            find(table, target, what=scope)

    @staticmethod
    def _until(text: str) -> str:
        if not text:
            return ""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidInput(
                f"{text[:40]!r} is not a time.", field="until",
                next_step="Write for instance 2026-12-24T18:00:00+01:00.",
            ) from error  # fmt: skip
        if moment.tzinfo is None:
            raise InvalidInput("The end needs a time zone.", field="until",
                               next_step="Write for instance 2026-12-24T18:00:00Z.")  # fmt: skip
        if moment <= datetime.now(UTC):
            raise InvalidInput("The end of the pause is past already.", field="until")
        return stamp(moment.astimezone(UTC))

    @method("pause.set")
    def set(
        self, *, scope: str, target: str = "", until: str = "", reason: str = "", by: str = ""
    ) -> dict[str, Any]:
        """Pause something, or give its pause another end and reason.

        ``until`` is an ISO time with a zone, empty for no end.
        """
        if len(reason) > MAX_REASON:
            raise InvalidInput(f"A reason has at most {MAX_REASON} characters.", field="reason")
        pause = Pause(
            scope=scope, target=target, until=self._until(until), reason=reason, by=by[:100],
            created_at=events.now(),
        )  # fmt: skip
        with self._daemon.store.transact() as root:
            self._target(root, scope, target)
            for old in self._of(root, scope, target):
                root.pauses.remove(old)
            root.pauses.add(pause)
            root.record(told.PauseSet(
                scope=scope, target=target, until=pause.until, reason=reason
            ))  # fmt: skip
            self._look_again(root)
            return pause.as_data()

    @method("pause.end")
    def end(self, *, scope: str, target: str = "") -> dict[str, Any]:
        """End a pause now; what waited for it is caught up as its schedule says."""
        with self._daemon.store.transact() as root:
            found = self._of(root, scope, target)
            if not found:
                raise NotFound(
                    f"{target or 'Everything'} is not paused."
                    if scope == EVERYTHING
                    else f"The {scope[:40]} {target!r} is not paused.",
                    next_step="See: borgcube pause list",
                )
            for pause in found:
                root.pauses.remove(pause)
            root.record(told.PauseEnded(scope=scope, target=target))
            self._look_again(root)
        return {"scope": scope, "target": target}

    @staticmethod
    def _of(root: Root, scope: str, target: str) -> list[Pause]:
        return [p for p in root.pauses.newest(checks.MAX_LISTED)
                if (p.scope, p.target) == (scope, target)]  # fmt: skip

    def _look_again(self, root: Root) -> None:
        now = datetime.now(UTC)
        for entry in root.timetable.entries.values():
            if entry.held == PAUSED:
                entry.excused = stamp(now)
                root.timetable.move(entry, seconds(now))
        root.after_commit(self._daemon.scheduler.wake)
        root.after_commit(self._daemon.dispatcher.wake)

    @method("pause.list")
    def every(self) -> list[dict[str, Any]]:
        """Return the pauses in force, the newest first."""
        now = datetime.now(UTC)
        with self._daemon.store.reading() as root:
            return [p.as_data() for p in root.pauses.newest(checks.MAX_LISTED)
                    if (instant(p.until) or now) >= now]  # fmt: skip
