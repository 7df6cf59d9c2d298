"""How fast the console is on a large store: ``python -m bench.pages HOME``.

Starts a real daemon with its console on a home that ``borgcube.testing.seed`` filled, logs
in and asks for every page in turn, then listens to the live feed while a real backup reports
its progress. HOME is changed: it gets two users, a client and a repository of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.watchers import Watchers
from borgcube.control.client import Control
from borgcube.core.errors import BorgCubeError
from borgcube.testing.consolerig import PASSWORD, Visitor, free_port

PAGE_GOAL_MS, DASHBOARD_GOAL_MS, MEMORY_GOAL, WATCHERS_GOAL = 150, 300, 600e6, 10.0
FIRST_LOOK_S = 65.0
START_S = 300.0
TREE_FILES, TREE_FILE_BYTES, RATE_KIB = 240, 1 << 18, 1500


class Server:
    """A daemon with its console on a home; a context manager."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        (home / "borgcube.toml").write_text(
            f'[console]\nenabled = true\nlisten = "127.0.0.1:{self.port}"\n'
            "[daemon]\ngrace_seconds = 1\n"
        )
        self.started_s = 0.0

    def __enter__(self) -> Server:
        begun = time.monotonic()
        self._log = (self.home / "bench-serve.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "borgcube", "--home", str(self.home), "serve"],
            stdin=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip
        self.process = psutil.Process(self._process.pid)
        while True:
            try:
                self.call("ping")
                if Visitor(self.port).get("/login").status == 200:
                    break
            except (BorgCubeError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() - begun > START_S:
                    raise RuntimeError(f"no daemon; see {self._log.name}") from error
                time.sleep(0.2)
        self.started_s = time.monotonic() - begun
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(120)
        self._log.close()

    def call(self, method: str, **params: Any) -> Any:
        """Ask the daemon."""
        with Control(self.home) as control:
            return control.call(method, timeout_s=120, **params)

    def cpu_s(self) -> float:
        """Return the CPU seconds that the daemon's process used so far."""
        # In nanoseconds for each thread; the fields of `stat` have ticks of 10 ms.
        tasks = Path(f"/proc/{self.process.pid}/task")
        return sum(_cpu_ns(task / "schedstat") for task in tasks.iterdir()) / 1e9

    def memory(self) -> dict[str, int]:
        """Return its memory in bytes."""
        found = self.process.memory_full_info()
        return {"rss": int(found.rss), "pss": int(found.pss)}

    def visitor(self, name: str, role: str, clients: list[str] | None = None) -> Visitor:
        """Return a logged-in visitor, whose user is made if needed."""
        try:
            self.call("user.add", name=name, role=role, clients=clients or [], password=PASSWORD)
        except BorgCubeError:
            self.call("user.password", name=name, password=PASSWORD)
        made = Visitor(self.port)
        answer = made.log_in(name)
        if answer.status != 303:
            raise RuntimeError(f"{name} cannot log in: {answer.status}")
        return made


def _cpu_ns(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0  # the thread has just ended


def addresses(server: Server) -> dict[str, str]:
    """Return the pages to ask for, by what they are."""
    call = server.call
    newest = call("job.list", type="backup", state="done", limit=1)[0]
    total = int(newest["id"])
    failed = call("job.list", state="failed", limit=1)[0]
    plan, client, repository = newest["plan"], newest["client"], newest["repository"]
    archive = call("archive.list", plan=plan, limit=1)[0]
    seq = call("events.since", seq=0, limit=1)[0]["seq"] + 5000
    ten_days_ago = f"{datetime.now(UTC) - timedelta(days=10):%Y-%m-%d}"
    held = f"/archives/{archive['repository']}/{archive['id']}"
    return {
        "dashboard": "/",
        "clients": "/clients", "clients, many match": "/clients?find=lab",
        "clients, none matches": "/clients?find=nothing-like-this",
        "clients not safe": "/clients?level=bad", "clients, deep": f"/clients?after={client}",
        "a client": f"/clients/{client}",
        "plans": "/plans", "plans, many match": "/plans?find=oslo",
        "plans, none matches": "/plans?find=nothing-like-this",
        "plans to look at": "/plans?level=warn", "plans, deep": f"/plans?after=2%3A{plan}",
        "a plan": f"/plans/{plan}", "a new plan": "/plans/+add",
        "jobs": "/jobs", "jobs, deep": f"/jobs?before={total // 2}",
        "jobs that failed": "/jobs?state=failed",
        "jobs, three filters": f"/jobs?state=failed&type=backup&repository={repository}",
        "jobs, nothing has both": f"/jobs?state=lost&plan={plan}",
        "jobs of a plan": f"/jobs?plan={plan}", "jobs of a day": f"/jobs?day={ten_days_ago}",
        "jobs, a piece of a name": "/jobs?client=oslo",
        "a job": f"/jobs/{newest['id']}", "a job that failed": f"/jobs/{failed['id']}",
        "archives": "/archives", "archives of a plan": f"/archives?plan={plan}",
        "archives of a day": f"/archives?day={ten_days_ago}&repository={repository}",
        "an archive": held, "a restore": f"{held}/restore",
        "repositories": "/repositories", "a repository": f"/repositories/{repository}",
        "events": "/events", "events, deep": f"/events?before={seq}",
        "audit trail": "/audit", "audit trail of a user": "/audit?user=olga",
        "users": "/users", "a new user": "/users/+add", "account": "/account",
        "plugins": "/plugins", "about and doctor": "/about",
        "API: jobs": "/api/v1/jobs?limit=100", "API: clients": "/api/v1/clients?limit=100",
    }  # fmt: skip


def asked(visitor: Visitor, path: str) -> float:
    """Ask for a page and return the milliseconds until all of it was there."""
    begun = time.monotonic()
    answer = visitor.get(path)
    took = 1000 * (time.monotonic() - begun)
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}")
    return took


def summary(times: list[float]) -> dict[str, float]:
    """Return median, 95th percentile and largest."""
    ordered = sorted(times)
    return {"p50": statistics.median(ordered), "max": ordered[-1],
            "p95": ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]}  # fmt: skip


def measure_pages(
    server: Server, visitor: Visitor, pages: Mapping[str, str], rounds: int
) -> dict[str, Any]:
    """Ask for all pages in turn, again and again: no page is asked twice in a row. ``cpu``
    is what the daemon's process worked meanwhile, which a busy machine changes little."""
    first = {name: asked(visitor, path) for name, path in pages.items()}
    times: dict[str, list[float]] = {name: [] for name in pages}
    cpu: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(rounds):
        for name, path in pages.items():
            begun = server.cpu_s()
            times[name].append(asked(visitor, path))
            cpu[name].append(1000 * (server.cpu_s() - begun))
    return {name: {"first": first[name], **summary(times[name]),
                   "cpu": statistics.median(cpu[name])} for name in pages}  # fmt: skip


def measure_calls(server: Server, rounds: int) -> dict[str, Any]:
    """Ask the control methods that the command line's listings use."""
    newest = server.call("job.list", type="backup", state="done", limit=1)[0]
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "job.list": ("job.list", {}),
        "job.list, failed of a client": (
            "job.list", {"state": "failed", "client": newest["client"]}
        ),
        "job.list, 1000": ("job.list", {"limit": 1000}),
        "archive.list of a plan": ("archive.list", {"plan": newest["plan"]}),
        "client.list, 1000": ("client.list", {}), "plan.list, 1000": ("plan.list", {}),
        "plan.show": ("plan.show", {"name": newest["plan"]}), "doctor": ("doctor", {}),
    }  # fmt: skip
    found = {}
    for name, (method, params) in calls.items():
        times = []
        for _ in range(rounds):
            begun = time.monotonic()
            server.call(method, **params)
            times.append(1000 * (time.monotonic() - begun))
        found[name] = {"first": times[0], **summary(times[1:])}
    return found


def slow_backup(server: Server, place: Path) -> str:
    """Start a real backup that reports progress for most of a minute; return its job's ID."""
    tree = place / "tree"
    tree.mkdir()
    for number in range(TREE_FILES):
        (tree / f"{number}").write_bytes(os.urandom(TREE_FILE_BYTES))
    name = f"bench-{int(time.time())}"
    server.call("repository.create", name=name, path=str(place / "repository"),
                encryption="repokey")  # fmt: skip
    server.call("client.add", name=name, transport="local", borg=str(_borg()))
    server.call("plan.add", name=name, client=name, repository=name, paths=[str(tree)],
                upload_ratelimit_kib=RATE_KIB)  # fmt: skip
    job = str(server.call("backup.start", plan=name)["job_id"])
    _until(lambda: server.call("job.show", id=job)["phase"] == "transferring")
    return job


def _borg() -> Path:
    return Path(sys.executable).parent / "borg"


def _until(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the backup did not begin")
        time.sleep(0.2)


def _asking(visitor: Visitor, paths: list[str], over: threading.Event, times: list[float]) -> None:
    chance = random.Random(1)
    while not over.is_set():
        times.append(asked(visitor, chance.choice(paths)))


def _is_quiet(server: Server) -> bool:
    """Tell whether the hourly look for silent plans, a minute after the start, is over: its
    seconds would be taken for the watchers'."""
    if time.time() - server.process.create_time() < FIRST_LOOK_S:
        return False
    begun = server.cpu_s()
    time.sleep(2)
    return server.cpu_s() - begun < 0.1


def measure_live(
    server: Server, visitor: Visitor, paths: list[str], watchers: int, span_s: float
) -> dict[str, Any]:
    """Listen to a running backup: alone, while pages are asked, and with many watchers."""
    found: dict[str, Any] = {"watchers": watchers}
    _until(lambda: _is_quiet(server))
    with tempfile.TemporaryDirectory(prefix="borgcube-bench-") as place:
        job = slow_backup(server, Path(place))
        with Watchers(visitor, 1) as one:
            begun, cpu = time.monotonic(), server.cpu_s()
            time.sleep(span_s)
            found["cpu_one"] = 100 * (server.cpu_s() - cpu) / (time.monotonic() - begun)
            found["age_idle"] = summary(one.ages)
            one.ages = []
            over = threading.Event()
            times: list[float] = []
            thread = threading.Thread(target=_asking, args=(visitor, paths, over, times))
            thread.start()
            time.sleep(span_s)
            over.set()
            thread.join()
            found["age_while_asked"] = summary(one.ages)
            found["pages_meanwhile"] = len(times)
        with Watchers(visitor, watchers):
            time.sleep(1)
            begun, cpu = time.monotonic(), server.cpu_s()
            time.sleep(span_s)
            found["cpu_many"] = 100 * (server.cpu_s() - cpu) / (time.monotonic() - begun)
        found["cost"] = found["cpu_many"] - found["cpu_one"]
        running = server.call("job.show", id=job)
        found["backup_lasted"] = not running["finished_at"]
        if not running["finished_at"]:
            server.call("job.cancel", id=job)
        _until(lambda: bool(server.call("job.show", id=job)["finished_at"]))
    return found


def _print(console: Console, report: dict[str, Any]) -> None:
    for part, title in (("pages", "milliseconds a page"), ("owner", "as an owner of 50 clients"),
                        ("calls", "milliseconds a control method")):  # fmt: skip
        table = Table(title=title)
        heads = ("first", "p50", "p95", "max", "cpu")[: 4 if part == "calls" else 5]
        for head in ("", *heads):
            table.add_column(head, justify="left" if not head else "right")
        for name, row in report.get(part, {}).items():
            goal = DASHBOARD_GOAL_MS if name == "dashboard" else PAGE_GOAL_MS
            style = "red" if row["p95"] > goal and part != "calls" else ""
            table.add_row(name, *(f"{row[key]:.0f}" for key in heads),
                          style=style)  # fmt: skip
        console.print(table)
    memory = report["memory"]
    console.print(f"start {report['start_s']:.1f} s; memory after it all: "
                  f"RSS {memory['rss'] / 1e6:.0f} MB, PSS {memory['pss'] / 1e6:.0f} MB "
                  f"(goal: below {MEMORY_GOAL / 1e6:.0f})")  # fmt: skip
    live = report.get("live")
    if live:
        console.print(
            f"live feed: events are {1000 * live['age_idle']['p50']:.0f} ms old (p95 "
            f"{1000 * live['age_idle']['p95']:.0f}); while {live['pages_meanwhile']} pages were "
            f"asked {1000 * live['age_while_asked']['p50']:.0f} (p95 "
            f"{1000 * live['age_while_asked']['p95']:.0f})"
        )
        console.print(
            f"{live['watchers']} watchers of a running backup: {live['cost']:.1f} % of a core "
            f"(goal: below {WATCHERS_GOAL:.0f}); {live['cpu_one']:.1f} % with one, "
            f"{live['cpu_many']:.1f} % with all"
        )


def main(argv: list[str] | None = None) -> int:
    """Measure; return 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("home", type=Path, help="a home that borgcube.testing.seed filled")
    parser.add_argument("--rounds", type=int, default=20, help="how often each page is asked")
    parser.add_argument("--watchers", type=int, default=200, help="0 leaves the live feed out")
    parser.add_argument("--span", type=float, default=10.0, help="seconds of each live figure")
    parser.add_argument("--only", default="", help="only pages with these letters in their name")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(argv)
    try:
        with Server(options.home.absolute()) as server:
            admin = server.visitor("bench", "administrator")
            pages = {name: path for name, path in addresses(server).items()
                     if options.only in name}  # fmt: skip
            report: dict[str, Any] = {"start_s": server.started_s, "load": os.getloadavg()}
            report["pages"] = measure_pages(server, admin, pages, options.rounds)
            if not options.only:
                clients = [one["name"] for one in server.call("client.list", limit=50)]
                owner = server.visitor("bench-owner", "owner", clients)
                own = {"dashboard": "/", "clients": "/clients", "plans": "/plans",
                       "jobs": "/jobs", "jobs that failed": "/jobs?state=failed",
                       "archives": "/archives"}  # fmt: skip
                report["owner"] = measure_pages(server, owner, own, options.rounds)
                report["calls"] = measure_calls(server, options.rounds)
            if options.watchers:
                report["live"] = measure_live(
                    server, admin, list(pages.values()), options.watchers, options.span
                )
            report["memory"] = server.memory()
    except (RuntimeError, OSError, BorgCubeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _print(Console(width=max(100, Console().width)), report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
