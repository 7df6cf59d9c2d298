"""/metrics: accepted by Prometheus's own parser, with a token of its own, and nothing in it
that a client said. The dashboard and the alert rules use names that are served."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from borgcube.testing.consolerig import ConsoleRig, Visitor
from tests.functional.console.conftest import FAKE, REAL, add_fleet

CONTRIB = Path(__file__).parents[3] / "contrib"
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    with ConsoleRig(tmp_path_factory.mktemp("metrics"), python_path=(str(FAKE),),
                    disabled=REAL) as made:  # fmt: skip
        add_fleet(made)
        made.call("plan.add", name="broken", client="web", repository="main", paths=["/etc"],
                  comment="cause")  # fmt: skip
        made.ended(made.call("backup.start", plan="broken")["job_id"])
        yield made


@pytest.fixture(scope="module")
def token(rig: ConsoleRig) -> str:
    return rig.cli("metrics", "token").strip().splitlines()[-1]


def read(rig: ConsoleRig, token: str, **headers: str) -> str:
    answer = Visitor(rig.port).get("/metrics", Authorization=f"Bearer {token}", **headers)
    assert answer.status == 200, answer.text
    return answer.text


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in parse(text) for sample in family.samples
    }  # fmt: skip


def test_the_figures_are_those_of_the_fleet(rig: ConsoleRig, token: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        found = samples(read(rig, token))
        if found.get(("borgcube_jobs_total", ("backup", "failed"))) == 1:
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    assert found["borgcube_jobs_total", ("backup", "done")] == 2
    assert found["borgcube_clients", ()] == 2
    assert found["borgcube_repository_archives", ("main",)] == 2
    assert found["borgcube_incidents_open", ("error", "plan-failed")] == 1
    assert found["borgcube_plan_failures", ("broken", "main", "web")] == 1
    at = found["borgcube_plan_last_archive_timestamp_seconds", ("main", "web", "web-etc")]
    assert abs(time.time() - at) < 600
    assert found["borgcube_plan_last_archive_timestamp_seconds", ("broken", "main", "web")] == 0
    assert sum(value for (name, _), value in found.items() if name == "borgcube_plans") == 3
    assert found["process_resident_memory_bytes", ()] > 10_000_000


def test_both_parsers_of_prometheus_take_it_and_names_keep_the_conventions(
    rig: ConsoleRig, token: str
) -> None:
    families = list(parse(read(rig, token)))
    strict = list(parse_openmetrics(read(rig, token, Accept=OPENMETRICS)))
    ours = [family for family in families if family.name.startswith("borgcube_")]
    assert len(ours) > 20 and {f.name for f in ours} <= {f.name for f in strict}
    for family in ours:
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"borgcube_[a-z_]+", family.name)
        # The unit of what has one stands in its name.
        assert family.type in ("gauge", "counter")
        assert not re.search(r"_(ms|minutes|kb|mb|gb|percent)$", family.name)


def served(rig: ConsoleRig, token: str) -> set[str]:
    return (
        {sample.name for family in parse(read(rig, token)) for sample in family.samples}
        | {f"{family.name}_total" for family in parse(read(rig, token)) if family.type == "counter"}
        | {family.name for family in parse(read(rig, token))}
    )


def test_the_manual_names_what_is_served(rig: ConsoleRig, token: str) -> None:
    named = set(re.findall(r"`(borgcube_\w+)`", DOCS.read_text("utf-8")))
    really = {name for name in served(rig, token) if name.startswith("borgcube_")}
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in parse(read(rig, token)) if family.name.startswith("borgcube_")
    }  # fmt: skip
    assert named <= really and families <= named


def test_dashboard_and_alerts_use_names_that_are_served(rig: ConsoleRig, token: str) -> None:
    known = served(rig, token) | {"borgcube", "borgcube_build_info"}
    rules = yaml.safe_load((CONTRIB / "prometheus" / "borgcube-alerts.yml").read_text("utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((CONTRIB / "grafana" / "borgcube.json").read_text("utf-8"))
    said = [rule["expr"] for rule in alerts]
    said += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(alerts) >= 5 and len(said) >= 15
    used = {name for text in said for name in re.findall(r"\b(?:borgcube|process)_\w+", text)}
    assert used - known == set()
    for rule in alerts:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"]["summary"] and rule["labels"]["severity"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Bearer ", "Basic eDp5", "Bearer é"])
def test_without_the_token_there_are_no_figures(rig: ConsoleRig, token: str, given: str) -> None:
    headers = {"Authorization": given.encode().decode("latin-1")} if given else {}
    answer = Visitor(rig.port).ask("GET", "/metrics", headers=headers)
    assert answer.status == 401 and "borgcube_" not in answer.text


def test_a_token_is_good_for_the_figures_and_nothing_else(rig: ConsoleRig, token: str) -> None:
    for path in ("/clients", "/api/v1/clients"):
        # From an address of its own: wrong tokens of the tests before are counted.
        answer = Visitor(rig.port, source="127.0.0.77").get(path, Authorization=f"Bearer {token}")
        assert answer.status in (303, 401), path
    assert token.encode() not in (rig.home / "store" / "borgcube.fs").read_bytes()


def test_people_who_may_see_the_server_may_see_its_figures(rig: ConsoleRig) -> None:
    seen = {name: rig.visitor(name).get("/metrics").status for name in ("ada", "vera", "owen")}
    assert seen == {"ada": 200, "vera": 200, "owen": 403}


def test_a_new_token_ends_the_old_one(rig: ConsoleRig, token: str) -> None:
    fresh: Any = rig.call("metrics.token")["token"]
    assert read(rig, fresh)
    for old in (token, fresh):
        if old == fresh:
            rig.call("metrics.revoke")
        answer = Visitor(rig.port).get("/metrics", Authorization=f"Bearer {old}")
        assert answer.status == 401
