"""What Prometheus is told, from one state of the store.

Names, units and types follow the conventions of Prometheus: ``_total`` for counters, which
begin with the store and never go back, ``_bytes`` and ``_seconds`` for units. It reads what
the store keeps ready (the status of plans, counters, the open problems) and walks no jobs. The
number of series is bounded: four for each of the first 20,000 plans, and a few for each
repository, channel, job type and kind of problem.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from borgcube import __version__
from borgcube.core import lifecycle
from borgcube.core.model.fleet import LEVELS
from borgcube.core.silence import moment
from borgcube.core.store import Root

MAX_PLANS = 20_000
MAX_SERIES = 500  # of one family, plans aside
MAX_OPEN = 50_000
WAITING = ("queued", *lifecycle.ACTIVE)
# Counters of the store: their name there, their name here, labels, what they count.
COUNTERS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("jobs", "borgcube_jobs", ("type", "state"), "Jobs that ended."),
    ("violations", "borgcube_client_violations", ("kind",), "What clients did that is refused."),
    ("incidents", "borgcube_incidents", ("kind",), "Problems that began."),
    ("archives_added", "borgcube_archives_added", ("repository",), "Archives that were added."),
    ("archives_deleted", "borgcube_archives_deleted", ("repository",),
     "Archives that were deleted."),
    ("bytes_read", "borgcube_archived_bytes", ("repository",),
     "Bytes in the archives that were added, before deduplication."),
    ("bytes_stored", "borgcube_stored_bytes", ("repository",),
     "Bytes stored anew, compressed and deduplicated."),
    ("deliveries", "borgcube_notification_attempts", ("channel", "outcome"),
     "Attempts to deliver a message."),
)  # fmt: skip


def _gauge(name: str, text: str, values: Iterable[tuple[tuple[str, ...], float]],
           labels: tuple[str, ...] = ()) -> GaugeMetricFamily:  # fmt: skip
    family = GaugeMetricFamily(name, text, labels=labels)
    for number, (key, value) in enumerate(values):
        if number >= MAX_SERIES:
            break
        family.add_metric(key, value)
    return family


def _counters(root: Root) -> Iterator[Metric]:
    kept: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for (name, *labels), value in root.counters.items():
        kept.setdefault(name, []).append((tuple(labels), value))
    for name, shown, labels, text in COUNTERS:
        family = CounterMetricFamily(shown, text, labels=labels)
        for key, value in kept.get(name, ())[:MAX_SERIES]:
            family.add_metric(key, value)
        yield family
    yield CounterMetricFamily("borgcube_journal_events", "Events in the journal's numbering.",
                              value=root.journal.last)  # fmt: skip


def _seconds(at: str) -> float:
    found = moment(at)
    return found.timestamp() if found is not None else 0


# Four series for each plan: their name and what they tell.
PLAN_SERIES = (
    ("borgcube_plan_last_archive_timestamp_seconds",
     "When the newest archive of a plan was begun; 0 for none."),
    ("borgcube_plan_last_archive_size_bytes",
     "Bytes in the newest archive of a plan, before deduplication."),
    ("borgcube_plan_last_run_timestamp_seconds",
     "When the last backup of a plan ended, well or not; 0 for never."),
    ("borgcube_plan_failures", "Backups of a plan that failed since one went well."),
)  # fmt: skip


def plan_lines(root: Root) -> bytes:
    """Return the families of plans in the text format, ready made: they are nearly all there
    is, and the client library takes ten times as long.

    Names of plans, clients and repositories hold nothing that would need escaping
    (``core.model.names``); the format is that of Prometheus' text format 0.0.4 and of
    OpenMetrics 1.0.0, which agree on gauges.
    """
    lines: tuple[list[str], ...] = ([], [], [], [])
    for number, status in enumerate(root.fleet.statuses.values()):
        if number >= MAX_PLANS:
            break
        plan, client, repository = status.plan, status.client, status.repository
        key = f'{{plan="{plan}",client="{client}",repository="{repository}"}}'
        lines[0].append(f"{key} {_seconds(status.archive_at)}")
        lines[1].append(f"{key} {status.size}")
        lines[2].append(f"{key} {_seconds(status.last_at)}")
        lines[3].append(f"{key} {status.failures}")
    text = []
    for (name, told), series in zip(PLAN_SERIES, lines, strict=True):
        text.append(f"# HELP {name} {told}\n# TYPE {name} gauge\n")
        text.extend(f"{name}{line}\n" for line in series)
    return "".join(text).encode()


def _fleet(root: Root) -> Iterator[Metric]:
    counts = root.fleet.group().counts
    yield _gauge("borgcube_plans", "Plans by how safe they are.",
                 [((level,), counts.get(level, 0)) for level in LEVELS], ("level",))  # fmt: skip
    yield _gauge("borgcube_clients", "Clients.", [((), root.clients.count())])
    yield _gauge("borgcube_jobs_unfinished", "Jobs that wait or run.",
                 [((state,), root.jobs.count(state=state)) for state in WAITING],
                 ("state",))  # fmt: skip
    open_ones: dict[tuple[str, ...], float] = {}
    for incident in root.incidents.newest(MAX_OPEN, state="open"):
        key = (incident.kind, incident.severity)
        open_ones[key] = open_ones.get(key, 0) + 1
    yield _gauge("borgcube_incidents_open", "Problems that are not over.",
                 open_ones.items(), ("kind", "severity"))  # fmt: skip
    waiting = root.deliveries.count(state="queued") + root.deliveries.count(state="sending")
    yield _gauge("borgcube_notifications_waiting", "Messages that are not delivered yet.",
                 [((), waiting)])  # fmt: skip


def _repositories(root: Root) -> Iterator[Metric]:
    archives, free, disk, held, taken, quarantined = [], [], [], [], [], []
    for repository in root.repositories.newest(MAX_SERIES):
        key = (repository.name,)
        archives.append((key, root.archives.count(repository=repository.name)))
        status = root.fleet.repository(repository.name)
        days = status.days
        held.append((key, status.held))
        quarantined.append((key, len(status.quarantined)))
        if len(days) and days[days.maxKey()]["free"] is not None:
            last = days[days.maxKey()]
            free.append((key, last["free"]))
            disk.append((key, last["disk"]))
            if last.get("stored") is not None:
                taken.append((key, last["stored"]))
    labels = ("repository",)
    yield _gauge("borgcube_repository_archives", "Archives in a repository.", archives, labels)
    yield _gauge("borgcube_repository_archives_quarantined",
                 "Archives in quarantine: they cannot be restored.", quarantined,
                 labels)  # fmt: skip
    yield _gauge("borgcube_repository_disk_free_bytes",
                 "Free bytes on a repository's disk, looked at once an hour.", free,
                 labels)  # fmt: skip
    yield _gauge("borgcube_repository_disk_size_bytes", "Bytes of a repository's disk.", disk,
                 labels)  # fmt: skip
    yield _gauge("borgcube_repository_held_bytes",
                 "The original size of a repository's archives.", held, labels)  # fmt: skip
    yield _gauge("borgcube_repository_taken_bytes",
                 "What a repository's directory takes, as last measured.", taken,
                 labels)  # fmt: skip


class StoreCollector(Collector):
    """Makes all families but those of plans from one reading of the store."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        begun = time.monotonic()
        yield _gauge("borgcube_build_info", "The version of BorgCube, as a label.",
                     [((__version__,), 1)], ("version",))  # fmt: skip
        for part in (_fleet, _repositories, _counters):
            yield from part(self._root)
        yield _gauge("borgcube_metrics_duration_seconds", "How long these figures took to read.",
                     [((), time.monotonic() - begun)])  # fmt: skip
