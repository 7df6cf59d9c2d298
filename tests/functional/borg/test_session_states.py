"""Many sessions against one vault, in every order, also at once: nothing is ever miscounted.

After each step every reference is counted anew by Borg's own reader; at the end the cache is made
anew from nothing and plain borg checks and reads everything.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.vaultclient import follow, open_file
from borgcube.plugins.borg.wire import WireError
from tests.functional.borg.vaultrig import DirectClient, LiveVault

PLANS = ("a", "b", "c")
SHARED = "client:shared"  # the domain of two of the plans
LARGE = 60_000  # bytes of a chunk that is sealed by a thread
contents = st.lists(st.integers(0, 24), min_size=1, max_size=8)
place = st.integers(0, 7)


def content(number: int) -> bytes:
    """Return one of few contents, so that sessions meet; every sixth is large."""
    return random.Random(number).randbytes(LARGE if number % 6 == 0 else 200 + number)


# Two are a look in passing; for a longer one: BORGCUBE_TEST_EXAMPLES=25.
EXAMPLES = int(os.environ.get("BORGCUBE_TEST_EXAMPLES", "2"))


class Sessions(RuleBasedStateMachine):
    """Sessions, archives and what must hold between them."""

    template: Path
    steps: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.place = Path(tempfile.mkdtemp(prefix="bcs-"))
        self.live = self.stack.enter_context(LiveVault(self.place / "live", template=self.template))
        self.open: list[tuple[DirectClient, list[int]]] = []
        self.archives: dict[str, list[int]] = {}
        self.new_bytes = 0
        self.deleted = False
        self.number = 0

    @initialize()
    def shake(self) -> None:
        sys.setswitchinterval(1e-4)

    # One after the other ----------------------------------------------------------------

    @precondition(lambda self: len(self.open) < 8)
    @rule(plan=st.sampled_from(PLANS))
    def begin(self, plan: str) -> None:
        self.number += 1
        shared = {"domain": SHARED, "own_domain": f"client:{plan}"} if plan != "c" else {}
        self.open.append((self.live.client(f"{plan}-{self.number}", **shared), []))

    @precondition(lambda self: self.open)
    @rule(at=place, numbers=contents)
    def put(self, at: int, numbers: list[int]) -> None:
        client, have = self.open[at % len(self.open)]
        for number in numbers:
            client.put(content(number))
        have += numbers

    @precondition(lambda self: self.open)
    @rule(at=place, numbers=contents)
    def commit(self, at: int, numbers: list[int]) -> None:
        """What it uploaded before is used in part only."""
        self._commit(*self._take(at), numbers)

    @precondition(lambda self: self.open)
    @rule(at=place, how=st.sampled_from(("keep", "discard", "vanish")))
    def end(self, at: int, how: str) -> None:
        self._end(self._take(at)[0], how)

    @precondition(lambda self: self.archives)
    @rule(at=st.sets(place, min_size=1, max_size=3), by=st.sampled_from(("prune", "delete")))
    def remove(self, at: set[int], by: str) -> None:
        self._remove(at, by)

    @rule()
    def compact(self) -> None:
        self._follow({"op": "compact", "threshold": 0.01, "least_share": 0.0})

    @precondition(lambda self: self.archives)
    @rule(at=place)
    def read(self, at: int) -> None:
        self._read(self._name(at))

    @precondition(lambda self: not self.open)
    @rule()
    def start_anew(self) -> None:
        self.live.stop()
        self.live.start()

    # At once ----------------------------------------------------------------------------

    @precondition(lambda self: len(self.open) > 1)
    @rule(data=st.data())
    def at_once(self, data: st.DataObject) -> None:
        """Several of the above in threads that start together."""
        work: list[Callable[[], Any]] = []
        for _ in range(data.draw(st.integers(2, min(4, len(self.open))))):
            client, have = self._take(data.draw(place))
            numbers = data.draw(contents)
            how = data.draw(st.sampled_from(("commit", "commit", "keep", "discard", "vanish")))
            if how == "commit":
                work.append(lambda c=client, h=have, n=numbers: self._commit(c, h, n))
            else:
                work.append(lambda c=client, w=how: self._end(c, w))
        if self.archives and data.draw(st.booleans()):
            chosen, by = data.draw(st.sets(place, min_size=1, max_size=2)), "prune"
            work.append(lambda: self._remove(chosen, by))
        elif self.archives and data.draw(st.booleans()):
            name = self._name(data.draw(place))
            work.append(lambda: self._read(name))
        together = threading.Barrier(len(work))
        failures: list[BaseException] = []

        def run(one: Callable[[], Any]) -> None:
            together.wait(30)
            try:
                one()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures, failures

    # What they do -----------------------------------------------------------------------

    def _take(self, at: int) -> tuple[DirectClient, list[int]]:
        return self.open.pop(at % len(self.open))

    def _name(self, at: int) -> str:
        return sorted(self.archives)[at % len(self.archives)]

    def _commit(self, client: DirectClient, have: list[int], numbers: list[int]) -> None:
        used = numbers + have[::2]
        client.archive(client.files([content(number) for number in used]))
        client.commit()
        figures = client.end()
        self.new_bytes += figures["new_size"]
        self.archives[client.archive_name] = used

    def _end(self, client: DirectClient, how: str) -> None:
        if how == "vanish":
            client.close()
        else:
            client.end(discard=how == "discard")

    def _follow(self, request: dict[str, Any]) -> dict[str, Any]:
        done: dict[str, Any] = follow(self.live.socket, request, on_progress=self._stop_waiting)[
            "done"
        ]
        return done

    def _stop_waiting(self, figures: dict[str, Any]) -> None:
        if figures.get("waiting"):
            raise WireError("a session is in the way")  # it would wait for ten minutes

    def _remove(self, at: set[int], by: str) -> None:
        names = sorted({self._name(one) for one in at})
        ids = self.live.archive_ids()
        self.deleted = True
        try:
            if by == "delete":
                self.live.ask("delete", archives=names)
            else:
                wanted = {name: ids[name] for name in names}
                self._follow({"op": "prune", "archives": wanted})
        except WireError:
            pass
        except JobFailed as error:
            if error.cause.kind != "repository-busy":
                raise
        left = self.live.archive_ids()
        for name in names:
            if name not in left:
                del self.archives[name]

    def _read(self, name: str) -> None:
        used = self.archives[name]
        stream = open_file(self.live.socket, archive_id=self.live.archive_ids()[name], key="f00000")
        with stream.source:
            got = b""
            while block := stream.source.recv(1 << 16):
                got += block
        assert got == content(used[0]), "another content than was backed up"

    # What must hold ---------------------------------------------------------------------

    @invariant()
    def every_reference_is_counted(self) -> None:
        type(self).steps += 1
        self.live.recount()

    @invariant()
    def what_was_stored_anew_is_told_once(self) -> None:
        ledger = self.live.vault.ledger
        if self.deleted:
            return
        with ledger.lock:
            real = {
                chunk_id
                for info in ledger.manifest.archives.list()
                if not info.name.endswith(".partial")
                for chunk_id in [info.id, *(k for k, _ in ledger.references(info.id).iteritems())]
            }
            # Told by who stored it, when its turn comes.
            due = sum(e[2] for k, e in ledger.uncounted.iteritems() if k in real)
            assert self.new_bytes + due == sum(ledger.chunks[key][2] for key in real)

    def teardown(self) -> None:
        try:
            for client, _ in self.open:
                client.close()
            assert set(self.archives) <= set(self.live.archive_ids())
            self.live.judge(read=3)
        finally:
            self.stack.close()
            shutil.rmtree(self.place, ignore_errors=True)


def test_no_order_of_sessions_miscounts_or_loses_anything(tmp_path: Path) -> None:
    with LiveVault(tmp_path / "template"):
        pass
    interval = sys.getswitchinterval()
    machine = type("Machine", (Sessions,), {"template": tmp_path / "template"})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=25, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), print_blob=True,
                phases=(Phase.generate,),
            ),
        )  # fmt: skip
    finally:
        sys.setswitchinterval(interval)
    assert machine.steps > 20
