"""The end of a job whose worker is gone: what it reported, and what its vault knows.

A worker can die, or give up, after its vault admitted the archive. The dispatcher asks the
vault before it says how such a job ended.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from borgcube.core import lifecycle
from borgcube.core.errors import FailureCause, Problem
from borgcube.core.jobs import JobResult

LOG = logging.getLogger(__name__)
Claim = Callable[[], dict[str, Any] | None]


class Ending:
    """A reported outcome, and the question to the vault in a thread, if there is one."""

    def __init__(
        self, reported: JobResult, claim: Claim | None,
        *, hopeless: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """Begin to ask. ``hopeless`` tells that the vault stands still, and that nobody is to
        wait for it: what it admitted all the same is found by the next one."""
        self._reported = reported
        self._hopeless = hopeless
        self._found: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None
        if claim is not None:
            self._thread = threading.Thread(
                target=self._ask, args=(claim,), name="claim", daemon=True
            )
            self._thread.start()

    def _ask(self, claim: Claim) -> None:
        try:
            self._found = claim()
        except Exception as error:
            # Without a vault there is no answer; the next one lists what there is.
            LOG.warning("the vault did not say whether an archive was admitted: %s", error)

    @property
    def over(self) -> bool:
        """Whether the outcome is known."""
        return self._thread is None or not self._thread.is_alive() or self._hopeless()

    def outcome(self) -> JobResult:
        """Return how the job ended."""
        if self._found is None:
            return self._reported
        result, facts = self._reported, dict(self._found)
        result.archives_added = [facts]
        result.data = {**result.data, "archive": facts["name"]}
        if result.state == lifecycle.FAILED:
            cause = result.cause
            result.state = lifecycle.WARNING
            result.cause = FailureCause(
                cause.kind if cause else "worker-died",
                cause.problem if cause else Problem.SERVER,
                "The archive is complete, but the job did not end as it should: "
                f"{cause.message if cause else 'no reason given.'}",
                "Nothing needs to be done for the backup itself.",
            )
            result.warnings = [*result.warnings, result.cause.message]
        return result
