"""The dispatcher: takes jobs from the queue, gets their vault and worker started, and
changes their state as workers report. It alone calls the lifecycle.

Changes that the store does not take (its disk may be full) are made again until it does, so
that no job stays without an end.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from ZODB.POSException import POSError

from borgcube.core import events, lifecycle, rereading
from borgcube.core.config import Config
from borgcube.core.errors import BorgCubeError, FailureCause, NotFound, Problem
from borgcube.core.jobs import JobResult
from borgcube.core.model import Job
from borgcube.core.registry import Registry
from borgcube.core.secrets import MasterKey
from borgcube.core.store import Root, Store
from borgcube.daemon import queue, statedirs, troubles
from borgcube.daemon.endings import Ending
from borgcube.daemon.orders import build_order
from borgcube.daemon.pruning import record_maintenance
from borgcube.daemon.reconcile import known_archives, take_stock
from borgcube.daemon.results import (
    record_archives,
    record_checks,
    record_drill,
    record_mended,
    record_quarantine,
    record_violations,
    result_of,
)
from borgcube.daemon.supervisor import Supervisor
from borgcube.daemon.upkeep import Upkeep
from borgcube.daemon.vaults import STILL_S, Vault, Vaults

LOG = logging.getLogger(__name__)
LOOK_AGAIN_S = 2.0  # a decide hook may change its mind without an event
OWED_AGAIN_S = 1.0
HUNG_GRACE_S = 5.0
# What a dead process did may go well the next time.
WORTH_A_RETRY = frozenset({
    "worker-died", "gate-died", "gate-hung", "vault-lost", "vault-stopped", "vault-hung",
    "borg-killed",
})  # fmt: skip


def passphrase_context(name: str) -> str:
    """Return what a repository's sealed passphrase is tied to."""
    return f"repository {name}"


class Dispatcher:
    """The queue's only consumer."""

    def __init__(
        self, home: Path, *, config: Config, store: Store, registry: Registry,
        keys: MasterKey, socket: zmq.Socket[bytes],
    ) -> None:  # fmt: skip
        self._home, self._config, self._store = home, config, store
        self._grace_s = config.daemon.grace_seconds
        self._registry, self._keys = registry, keys
        self.publish: Any = lambda envelope: None
        self.vaults = Vaults(
            home, idle_s=config.vault.idle_seconds, start_s=config.vault.start_seconds,
            hang_s=config.vault.hang_seconds,
            log_max_bytes=config.log.max_bytes, log_keep=config.log.keep,
        )  # fmt: skip
        self.vaults.on_listed = self._archives_listed
        self.vaults.on_hung = self._vault_hung
        self._hung: dict[str, FailureCause] = {}  # job -> why its vault was given up
        self.upkeep = Upkeep(home, store=store, registry=registry, start=self.start_vault)
        self.supervisor = Supervisor(home, socket, self)
        self.open_jobs = queue.OpenJobs()
        self.progress: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, str] = {}  # job -> repository whose vault is starting
        self._alone: set[str] = set()  # those of them that want it without a vault
        self._look_at = 0.0
        self._endings: dict[str, Ending] = {}
        self._owed: deque[Callable[[], None]] = deque()
        self._owed_at = 0.0
        self._refusing = False
        self.stopping = False

    def wake(self) -> None:
        """Look at the queue at the next step."""
        self._look_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a worker or a starting vault needs frequent looking after."""
        return bool(self._waiting or self._endings or self._owed) or len(self.supervisor) > 0

    def step(self) -> None:
        """Do what can be done now; never waits."""
        self._pay()
        self.supervisor.receive()
        self.supervisor.step()
        self._end_jobs()
        self.vaults.step()
        if not self.stopping:
            self.upkeep.step(running=self.vaults.names())
        for job_id, repository in list(self._waiting.items()):
            self._try_vault(job_id, repository)
        if not self.stopping and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_AGAIN_S
            self._take_jobs()

    def _running(self) -> int:
        return len(self.supervisor) + len(self._waiting) + len(self._endings)

    def _surely(self, change: Callable[[], None]) -> None:
        """Make a change of state, now or as soon as the store takes it."""
        self._owed.append(change)
        self._owed_at = 0.0
        self._pay()

    def _pay(self) -> None:
        while self._owed and time.monotonic() >= self._owed_at:
            change = self._owed.popleft()
            try:
                change()
                if self._refusing:
                    # The line about the refusal may not have fitted on the disk either.
                    self._refusing = False
                    LOG.warning("the store takes changes again; those that waited are made")
            except BorgCubeError:
                LOG.exception("a change of state was refused")
            except Exception:
                LOG.exception("the store took no change; it is tried again")
                self._owed.append(change)
                self._refusing = True
                self._owed_at = time.monotonic() + OWED_AGAIN_S

    def _take_jobs(self) -> None:
        free = self._config.jobs.max_running - self._running()
        if free <= 0:
            return
        with self._store.reading() as root:
            now = datetime.now(UTC)
            queued, active = self.open_jobs.look(root)
            slots = queue.slots_of(root, active, free=free, job_types=self._registry.job_types)
            holds = queue.Holds(root, self._registry.schedules, now)
            for job in queue.select(queued, slots, holds=holds, now=now):
                data = root.jobs.rows[job.number].as_data()
                if self._registry.may_start(data):
                    slots.take(job)
                    slots.free -= 1
                    self._take(job.id)

    def _take(self, job_id: str) -> None:
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            lifecycle.take(root, job)
            kind, repository = job.type, job.repository
        job_type = self._registry.job_types.get(kind)
        if job_type is None:
            self._fail(job_id, FailureCause(
                "job-type-missing", Problem.CONFIGURATION, f"There is no job type {kind!r}.",
                "See `borgcube plugins` for plugins in quarantine.",
            ))  # fmt: skip
        elif job_type.needs_vault or (repository and queue.needs_alone(job_type)):
            if not job_type.needs_vault:
                self._alone.add(job_id)
            self._waiting[job_id] = repository
            self._try_vault(job_id, repository)
        else:
            self._spawn(job_id, "")

    def _try_alone(self, job_id: str, repository: str) -> None:
        """Start a job that has its repository alone, once no vault holds it any more."""
        if repository in self.vaults.names():
            self.vaults.retire(repository)
            if (lost := self.vaults.lost(repository)) is not None:
                del self._waiting[job_id]
                self._alone.discard(job_id)
                self._fail(job_id, lost)
            return
        del self._waiting[job_id]
        self._alone.discard(job_id)
        self._spawn(job_id, "", repository=repository)

    def _try_vault(self, job_id: str, repository: str) -> None:
        if job_id in self._alone:
            self._try_alone(job_id, repository)
            return
        try:
            try:
                answer = self.vaults.need(repository, job_id)
            except KeyError:
                self.start_vault(repository)
                return
        except BorgCubeError as error:
            answer = FailureCause(
                "vault-failed", Problem.CONFIGURATION, error.message, error.next_step
            )
        except OSError as error:
            answer = FailureCause("vault-failed", Problem.SERVER, f"No vault: {error}.")
        if isinstance(answer, FailureCause):
            # The cause concerns every job that waits for this vault.
            for waiting, name in list(self._waiting.items()):
                if name == repository:
                    del self._waiting[waiting]
                    self._fail(waiting, answer)
        elif isinstance(answer, Vault):
            del self._waiting[job_id]
            self._spawn(job_id, str(answer.socket))

    def start_vault(self, name: str) -> None:
        """Start the vault of a repository; raises BorgCubeError or OSError when it cannot."""
        with self._store.transact() as root:
            repository = root.repositories.find("name", name)
            if repository is None:
                raise NotFound(f"There is no repository {name!r}.")
            statedirs.refuse_copy(root, repository)
            data, sealed = repository.as_data(), repository.passphrase
        engine = self._registry.engines.get(data["engine"])
        if engine is None:
            raise NotFound(f"There is no engine {data['engine']!r}.",
                           next_step="See `borgcube plugins`.")  # fmt: skip
        socket = self.vaults.socket_for(data["id"])
        state_dir = statedirs.of(self._home, data["engine"], data["id"])
        statedirs.adopt_one(
            self._home, engine, identity=data["id"], repository_id=data["repository_id"]
        )
        argv = engine.vault_command(
            name=name, path=Path(data["path"]), socket=socket,
            state_dir=state_dir,
            repository_id=data["repository_id"],
            partial_days=self._config.vault.partial_days,
            free_floor_bytes=data["free_floor_bytes"],
        )  # fmt: skip
        passphrase = self._keys.unseal(sealed, context=passphrase_context(name))
        known = known_archives(self._store, name)
        self.vaults.start(
            name, argv=argv, socket=socket, passphrase=passphrase,
            lister=lambda: engine.list_archives(socket, known=known),
        )  # fmt: skip

    def _archives_listed(self, repository: str, listed: Sequence[dict[str, Any]]) -> None:
        for job_id in take_stock(self._store, repository, listed):
            self._surely(partial(self._spare, job_id))
        with self._store.transact() as root:
            troubles.opened(root, repository)

    def _vault_hung(self, cause: FailureCause, jobs: frozenset[str]) -> None:
        """End the jobs of a vault that was given up, with that cause."""
        for job_id in jobs:
            self._hung[job_id] = cause
            self.supervisor.cancel(job_id, grace_s=min(HUNG_GRACE_S, self._grace_s))

    def _spare(self, job_id: str) -> None:
        """End a retry that waits, because the attempt before it was lost with its archive done."""
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            if job.state == lifecycle.STARTING:
                lifecycle.request_cancel(root, job)
            lifecycle.finish(root, job, lifecycle.CANCELLED, cause=FailureCause(
                "not-needed", Problem.SERVER,
                f"Job {job.retry_of} was lost, but its archive is complete.",
                "Nothing needs to be done.",
            ))  # fmt: skip
        self._waiting.pop(job_id, None)

    def _passphrase(self, root: Root, job: Job, repository: str) -> str:
        """Return the passphrase for a worker that has its repository alone, and no client."""
        job_type = self._registry.job_types.get(job.type)
        found = root.repositories.find("name", repository) if repository else None
        if found is None or job_type is None or job_type.needs_client or job.client:
            return ""
        return self._keys.unseal(found.passphrase, context=passphrase_context(repository))

    def _spawn(self, job_id: str, vault_socket: str, *, repository: str = "") -> None:
        try:
            with self._store.transact() as root:
                job = root.jobs.find("id", job_id)
                prepare = getattr(self._registry.job_types.get(job.type), "prepare", None)
                if prepare is not None:
                    job.parameters = prepare(root, job)
                order = build_order(root, job, vault_socket=vault_socket)
                job.parameters = order.parameters
                passphrase = self._passphrase(root, job, repository)
            self.supervisor.start(
                order, log_max_bytes=self._config.jobs.log_max_bytes, passphrase=passphrase
            )
        except BorgCubeError as error:
            self.vaults.release(job_id)
            self._fail(job_id, FailureCause(
                "refused", Problem.CONFIGURATION, error.message, error.next_step
            ))  # fmt: skip
        except Exception as error:
            LOG.exception("job %s: no worker", job_id)
            self.vaults.release(job_id)
            self._fail(job_id, FailureCause(
                "worker-not-started", Problem.SERVER, f"No worker could be started: {error}."
            ))  # fmt: skip

    def _fail(self, job_id: str, cause: FailureCause) -> None:
        def change() -> None:
            with self._store.transact() as root:
                job = root.jobs.find("id", job_id)
                if job.state in lifecycle.ENDED:
                    return
                if job.state == lifecycle.CANCELLING:
                    lifecycle.finish(root, job, lifecycle.CANCELLED)
                else:
                    lifecycle.finish(root, job, lifecycle.FAILED, cause=cause)
                    troubles.note(root, job, state=lifecycle.FAILED, cause=cause)
                    self._again(root, job, cause)
            self.wake()

        self._surely(change)

    def _again(self, root: Root, job: Job, cause: FailureCause | None) -> None:
        if cause and (cause.problem == Problem.NETWORK or cause.kind in WORTH_A_RETRY):
            lifecycle.requeue(root, job)

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop; raises NotFound or IllegalTransition."""
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            if job is None:
                raise NotFound(f"There is no job {job_id!r}.", next_step="See: borgcube job list")
            lifecycle.request_cancel(root, job)
            if job.state == lifecycle.CANCELLING and job_id in self._waiting:
                lifecycle.finish(root, job, lifecycle.CANCELLED)
        self._waiting.pop(job_id, None)
        self._alone.discard(job_id)
        self.supervisor.cancel(job_id, grace_s=self._config.daemon.grace_seconds)

    def wind_down(self) -> None:
        """Take no more jobs and ask those that run or wait to stop."""
        self.stopping = True
        for job_id in list(self._waiting):
            try:
                self.cancel(job_id)
            except Exception:
                LOG.exception("job %s was not cancelled; it will be lost", job_id)
                self._waiting.pop(job_id, None)
        self.supervisor.stop_all(grace_s=self._config.daemon.grace_seconds)

    # What workers report

    def worker_hello(self, job_id: str) -> None:
        """The worker runs."""
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            if job.state == lifecycle.STARTING:
                lifecycle.start(root, job)

    def worker_phase(self, job_id: str, phase: str) -> None:
        """The job entered a phase."""
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            if job.state == lifecycle.STARTING:
                lifecycle.start(root, job)
            lifecycle.enter_phase(root, job, phase)

    def worker_progress(self, job_id: str, figures: dict[str, Any]) -> None:
        """Figures of the job: published, stored only at its end."""
        self.progress[job_id] = figures
        self.publish(events.Envelope.of(events.JobProgress(job=job_id, progress=figures)))

    def worker_ended(self, job_id: str, result: dict[str, Any] | None, code: int) -> None:
        """Take up the end of a job, with what its worker reported."""
        outcome = result_of(result, code, job_id)
        socket = self.vaults.socket_of(job_id)
        engine = None
        if socket is not None and not outcome.archives_added:
            with self._store.transact() as root:
                job = root.jobs.find("id", job_id)
                repository = root.repositories.find("name", job.repository)
                if job.type == "backup" and repository is not None:
                    engine = self._registry.engines.get(repository.engine)
        claim = None
        if engine is not None and socket is not None:
            claim = partial(engine.claim_archive, socket, job_id=job_id)
        self._endings[job_id] = Ending(
            outcome, claim, hopeless=partial(self._is_hopeless, job_id, outcome.state)
        )

    def _is_hopeless(self, job_id: str, state: str) -> bool:
        """Tell whether nobody is to wait for what the vault of a job has to say."""
        hurry = self.stopping or state == lifecycle.CANCELLED
        return self.vaults.still_s(job_id) > (STILL_S if hurry else self._config.vault.hang_seconds)

    def _end_jobs(self) -> None:
        for job_id, ending in list(self._endings.items()):
            if not ending.over:
                continue
            del self._endings[job_id]
            self.vaults.release(job_id)
            self._surely(partial(self._finish, job_id, ending.outcome()))

    def _finish(self, job_id: str, outcome: JobResult) -> None:
        try:
            self._record_end(job_id, outcome)
        except (BorgCubeError, OSError, POSError):
            raise  # the store takes no change
        except Exception as error:
            LOG.exception("what job %s reported could not be recorded", job_id)
            self._record_end(job_id, JobResult(state=lifecycle.FAILED, cause=FailureCause(
                "result-not-recorded", Problem.SERVER,
                f"What the job reported could not be recorded ({type(error).__name__}).",
                "See the daemon's log. An archive that it made is found when the daemon starts.",
            )))  # fmt: skip

    def _record_end(self, job_id: str, outcome: JobResult) -> None:
        state, cause = outcome.state, outcome.cause
        hung = self._hung.pop(job_id, None)
        if hung is not None and state in (lifecycle.FAILED, lifecycle.CANCELLED):
            state, cause = lifecycle.FAILED, hung
        with self._store.transact() as root:
            job = root.jobs.find("id", job_id)
            if job.state == lifecycle.STARTING and state != lifecycle.FAILED:
                lifecycle.start(root, job)
            if job.state == lifecycle.CANCELLING and state == lifecycle.FAILED:
                state, cause = lifecycle.CANCELLED, None
            if outcome.violations:
                cause = rereading.with_offer(cause, job.plan)
            job.progress = self.progress.get(job_id, {})
            record_archives(root, job, outcome)
            record_mended(root, job, outcome)
            record_quarantine(root, job, outcome)
            record_maintenance(root, job, outcome)
            record_violations(root, job, outcome)
            record_checks(root, job, outcome)
            record_drill(root, job, outcome)
            lifecycle.finish(
                root, job, state, cause=cause, result=outcome.data,
                warnings=tuple(outcome.warnings),
            )  # fmt: skip
            troubles.note(
                root, job, state=state, cause=cause,
                changed=bool(outcome.archives_added or outcome.archives_deleted),
            )  # fmt: skip
            if state == lifecycle.FAILED and not self.stopping:
                self._again(root, job, cause)
            if job.type == lifecycle.MEND and state not in lifecycle.WELL:
                # What came of it only the repository knows; the next vault is asked.
                root.after_commit(partial(self.vaults.retire, job.repository))
        self.progress.pop(job_id, None)
        self.wake()
