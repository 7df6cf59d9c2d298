"""borgcubed: one main thread around a poller; all store work is done in it."""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import logging.handlers
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import zmq

from borgcube import __version__
from borgcube.core import authority, drills, events, secrets
from borgcube.core import config as configuration
from borgcube.core import home as places
from borgcube.core.access import Identity
from borgcube.core.errors import BorgCubeError, ConfigurationError
from borgcube.core.registry import Registry
from borgcube.core.services import Service, ServiceContext, ServiceFactory
from borgcube.core.store import Store
from borgcube.daemon import hostkeys, statedirs
from borgcube.daemon.alarms import Alarms
from borgcube.daemon.audit import Audit
from borgcube.daemon.control import MAX_REQUEST, UNWRITABLE, Control, methods_of
from borgcube.daemon.dispatcher import Dispatcher
from borgcube.daemon.hostask import HostAsker
from borgcube.daemon.housekeeping import Housekeeping
from borgcube.daemon.methods_accounts import AccountMethods
from borgcube.daemon.methods_checks import CheckMethods
from borgcube.daemon.methods_clients import ClientMethods
from borgcube.daemon.methods_diagnosis import DiagnosisMethods
from borgcube.daemon.methods_enrol import EnrolMethods
from borgcube.daemon.methods_jobs import JobMethods
from borgcube.daemon.methods_listings import ListingMethods
from borgcube.daemon.methods_logins import LoginMethods
from borgcube.daemon.methods_metrics import MetricsMethods
from borgcube.daemon.methods_notify import NotifyMethods
from borgcube.daemon.methods_pauses import PauseMethods
from borgcube.daemon.methods_plans import PlanMethods
from borgcube.daemon.methods_repositories import RepositoryMethods
from borgcube.daemon.methods_retention import RetentionMethods
from borgcube.daemon.methods_schedules import ScheduleMethods
from borgcube.daemon.methods_store import StoreMethods
from borgcube.daemon.methods_system import SystemMethods
from borgcube.daemon.methods_tasks import TaskMethods
from borgcube.daemon.methods_triggers import TriggerMethods
from borgcube.daemon.pruning import Purger
from borgcube.daemon.reach import Reach
from borgcube.daemon.reads import Reads
from borgcube.daemon.reconcile import lose_jobs
from borgcube.daemon.scheduler import Scheduler
from borgcube.daemon.supervisor import MAX_MESSAGE

LOG = logging.getLogger(__name__)
# Whose methods the control socket has, beside SystemMethods.
METHODS: tuple[Any, ...] = (
    RepositoryMethods, ClientMethods, PlanMethods, JobMethods, StoreMethods,
    AccountMethods, LoginMethods, EnrolMethods, NotifyMethods, RetentionMethods,
    ScheduleMethods, TaskMethods, PauseMethods, TriggerMethods, ListingMethods,
    CheckMethods, MetricsMethods, DiagnosisMethods,
)  # fmt: skip
VAULT_STOP_S = 60.0
COLLECT_AFTER = (10_000, 10, 20)


def take_lock(home: Path) -> IO[str]:
    """Lock the home for this process; raises ConfigurationError when another has it."""
    lock = (home / "borgcubed.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        pid = lock.read(20).strip() or "unknown"
        lock.close()
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise ConfigurationError(
            f"A daemon runs on {home} already (process {pid}).",
            next_step="Use that one, or stop it first.",
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def sweep_runtime(directory: Path) -> None:
    """Remove the sockets and directories that a killed daemon left."""
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


class Daemon:
    """The parts of a running daemon."""

    def __init__(self, home: Path, services: Sequence[ServiceFactory] = ()) -> None:
        self.home = home
        self.config = configuration.load(home)
        self.keys = secrets.load_master_key(home)
        plugins = self.config.plugins
        self.registry = Registry.load(disabled=plugins.disabled, required=plugins.required)
        steps = self.registry.registered["register_evolution_steps"].values()
        self.store = Store.open(self.config.store_uri(home), steps=tuple(steps))
        self._stop_asked = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sweep_runtime(places.runtime_dir(home))
        self._control_socket = self._bind(zmq.ROUTER, places.control_endpoint(home), MAX_REQUEST)
        self._bus = self._bind(zmq.PUB, places.bus_endpoint(home), MAX_REQUEST)
        self._workers_socket = self._bind(zmq.ROUTER, places.workers_endpoint(home), MAX_MESSAGE)
        self._workers_socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.dispatcher = Dispatcher(
            home, config=self.config, store=self.store, registry=self.registry,
            keys=self.keys, socket=self._workers_socket,
        )  # fmt: skip
        self.dispatcher.publish = self.publish
        self.reads = Reads(
            home, registry=self.registry, vaults=self.dispatcher.vaults,
            start=self.dispatcher.start_vault, start_s=self.config.vault.start_seconds,
        )  # fmt: skip
        hostkeys.take_over(self.store, home)
        self.hosts = HostAsker(home, self.registry)
        self.reach = Reach(self.hosts)
        self.scheduler = Scheduler(
            self.store, self.registry, lanes=self.config.jobs.max_running, reach=self.reach,
            open_jobs=self.dispatcher.open_jobs, queued=self.dispatcher.wake,
        )  # fmt: skip
        self.store.on_committed = self.publish
        self.housekeeping = Housekeeping(
            self.store, home=home, config=self.config, busy=lambda: self.dispatcher.busy
        )
        self.purger = Purger(self)
        self.audit = Audit(self.store)
        system = SystemMethods(self)
        self.alarms = Alarms(
            self.config, self.store, self.registry, self.keys, doctor=system.conditions
        )
        self.alarms.courier.publish = self.publish
        methods: dict[str, Any] = methods_of(system)
        for kind in METHODS:
            methods.update(methods_of(kind(self)))
        self.control = Control(self._control_socket, methods, audit=self.audit, judge=self._judge)
        context = ServiceContext(home, self.config, self.store, self.registry)
        self.services: list[Service] = [factory(context) for factory in services]

    def _bind(self, kind: int, endpoint: str, largest: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 1000)
        # Twice the limit, so that a request just above it gets a clear answer.
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * largest)
        socket.setsockopt(zmq.SNDHWM, 10_000)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            number = error.errno or 0
            raise OSError(number, os.strerror(number), endpoint) from error
        return socket

    def _judge(self, me: Identity | None, method: str, params: dict[str, Any]) -> None:
        server = authority.Server(
            self.home, tuple(self.config.repositories.roots), self.registry.transports
        )
        with self.store.reading() as root:
            authority.judge(me, method, params, root=root, server=server)

    def publish(self, envelope: events.Envelope) -> None:
        """Send an event to the bus, and journalled ones to the observers."""
        self._bus.send_multipart([envelope.type.encode(), envelope.to_json()])
        if envelope.seq is not None:
            self.alarms.hear(envelope)
            self.scheduler.notice(envelope)
            self.registry.observe(envelope.as_data())

    def ask_to_stop(self, *_: object) -> None:
        """Stop soon; safe in a signal handler."""
        self._stop_asked = True

    def _start_services(self) -> None:
        for service in self.services:
            try:
                service.start()
            except Exception as error:
                # Backups go on without a console; doctor says that it is missing.
                LOG.error("%s: %s", service.name, error,
                          exc_info=not isinstance(error, BorgCubeError))  # fmt: skip
                service.problem = str(error) or type(error).__name__
                print(f"borgcube: {service.problem}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Serve until asked to stop."""
        lose_jobs(self.store)
        statedirs.adopt(self.home, self.store, self.registry)
        self.scheduler.start()
        drills.clear_scratch_later(self.home)
        with self.store.transact() as root:
            for plugin in self.registry.quarantined:
                root.record(events.PluginQuarantined(
                    plugin=plugin.name, distribution=plugin.distribution, error=plugin.error
                ))  # fmt: skip
            root.record(events.DaemonStarted(version=__version__, pid=os.getpid()))
        LOG.info("borgcubed %s serves %s as process %d", __version__, self.home, os.getpid())
        self._start_services()
        self.alarms.start()
        _calm_collector()
        poller = zmq.Poller()
        poller.register(self._control_socket, zmq.POLLIN)
        poller.register(self._workers_socket, zmq.POLLIN)
        while not self._stop_asked:
            parts = (self.dispatcher, self.control, self.alarms, self.scheduler, self.reads)
            busy = any(part.busy for part in parts)
            poller.poll(50 if busy else 250)
            self._turn()
        self._stop(poller)

    def _turn(self) -> None:
        for part in (
            self.control.receive, self.control.step, self.scheduler.step, self.purger.step,
            self.dispatcher.step, self.reads.step, self.alarms.step, self.housekeeping.step,
        ):  # fmt: skip
            try:
                part()
            except Exception:
                # One broken job must not take the others down; the pause keeps a lasting
                # fault from filling the log.
                LOG.exception("an error in the main loop")
                time.sleep(0.2)

    def _stop(self, poller: zmq.Poller) -> None:
        LOG.info("stopping")
        try:
            with self.store.transact() as root:
                root.record(events.DaemonStopping(pid=os.getpid()))
        except Exception:
            LOG.exception("the store took no event; stopping all the same")
        self._control_socket.close()
        poller.unregister(self._control_socket)
        self.control.close()
        self.hosts.close()
        self.dispatcher.wind_down()
        deadline = time.monotonic() + self.config.daemon.grace_seconds + 15
        while self.dispatcher.busy and time.monotonic() < deadline:
            poller.poll(50)
            try:
                self.dispatcher.step()
            except Exception:
                LOG.exception("an error while stopping")
                time.sleep(0.2)
        self.dispatcher.vaults.stop_all(timeout_s=VAULT_STOP_S)
        self.alarms.close()

    def close(self) -> None:
        """End the services; close sockets and store."""
        for service in self.services:
            service.stop()
        self.hosts.close()
        self._context.destroy(linger=1000)
        self.store.close()
        sweep_runtime(places.runtime_dir(self.home))


def set_up_logging(
    home: Path, settings: configuration.LogConfig, *, name: str = "borgcubed.log"
) -> logging.Handler:
    """Log to a file of ``logs/``, rotated by size."""
    handler = logging.handlers.RotatingFileHandler(
        places.log_dir(home) / name, maxBytes=settings.max_bytes,
        backupCount=settings.keep, encoding="utf-8",
    )  # fmt: skip
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("borgcube").setLevel(logging.INFO)
    return handler


def _calm_collector() -> None:
    """Look for reference cycles less often. The store's caches hold hundreds of thousands of
    objects that no cycle keeps alive; each walk of them all stops every thread, and so every
    page, for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def serve(home: Path, services: Sequence[ServiceFactory] = ()) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; returns the exit code.

    ``services`` run beside it in this process. Raises BorgCubeError when it cannot start.
    """
    try:
        return _serve(home, services)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise ConfigurationError(
            f"{home} cannot be written: {error.strerror}.",
            next_step="Make room there, or make it writable, then start again.",
        ) from error


def _serve(home: Path, services: Sequence[ServiceFactory]) -> int:
    places.require_home(home)
    os.umask(0o077)
    lock = take_lock(home)
    handler = set_up_logging(home, configuration.load(home).log)
    try:
        daemon = Daemon(home, services)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, daemon.ask_to_stop)
        try:
            daemon.run()
        finally:
            daemon.close()
        LOG.info("stopped")
    except BorgCubeError as error:
        LOG.error("%s", error)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        lock.close()
    return 0
