"""Whatever happens in whatever order: each rule hears of a problem once, and of its end once
if it heard of the problem."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from borgcube.core import events
from tests.unit.daemon.alarmrig import NETWORK, Rig

PLANS = st.sampled_from(["web", "web", "mail"])
RUN = st.tuples(st.just("run"), PLANS, st.sampled_from(["failed", "failed", "done", "lost"]))
# Runs are what most happens of, so that their ends and failures meet all the rest.
STEPS = st.one_of(
    RUN,
    RUN,
    RUN,
    st.tuples(st.just("run"), PLANS, st.just("cancelled")),
    st.tuples(st.just("retry"), PLANS, st.just("")),
    st.tuples(st.just("violation"), PLANS, st.sampled_from(["wrong-id", "client-clock"])),
    st.tuples(st.just("later"), st.just(""), st.sampled_from(["20", "600", "90000", "700000"])),
    st.tuples(st.just("look"), st.just(""), st.just("")),
    st.tuples(st.just("deliver"), st.just(""), st.sampled_from(["sent", "failing"])),
    st.tuples(st.just("die"), st.just(""), st.just("")),
)


def deliver(rig: Rig, ending: str) -> None:
    """Do what the courier would, without processes: what is due goes out, or fails."""
    with rig.store.transact() as root:
        for one in list(root.deliveries.oldest("state", "queued")):
            if one.due_at <= rig.at:
                one.attempts += 1
                if ending == "sent":
                    root.deliveries.change(one, state="sent")


def check(rig: Rig) -> None:
    heard: Counter[tuple[str, str, str]] = Counter()
    for one in rig.deliveries():
        for item in one["items"]:
            heard[one["rule"], item["id"], item["what"]] += 1
    open_keys = [one["key"] for one in rig.incidents(state="open")]
    assert len(open_keys) == len(set(open_keys)), "one open incident of a key"
    for incident in rig.incidents():
        for rule in ("all", "quiet"):
            opened = heard[rule, incident["id"], "opened"]
            over = heard[rule, incident["id"], "over"]
            # What was over before it was told was taken out of its message again.
            closed = incident["state"] == "closed"
            assert opened == over if closed else (opened, over) == (1, 0), (incident, heard)
            assert opened <= 1 and over <= 1
            assert not (heard[rule, incident["id"], "reminder"] and not opened)
    with rig.store.reading() as root:
        types = Counter(entry["type"] for entry in root.journal.since(0, 1000))
    assert types["incident.opened"] == len(rig.incidents())
    assert types["incident.closed"] == len(rig.incidents(state="closed"))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # an example takes too long to shrink
)
@given(st.lists(STEPS, min_size=10, max_size=25))
def test_each_rule_hears_once(steps: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        rig = Rig(Path(place))
        rig.channel("hook")
        rig.fleet("web", "mail")
        rig.rule("all", group_s=60, remind_hours=24)
        rig.rule("quiet", quiet_from="11:00", quiet_until="18:00", quiet_lets="never")
        for kind, plan, how in steps:
            if kind == "run":
                rig.run(plan, how, cause=NETWORK)
            elif kind == "retry":
                rig.run(plan, "failed", retry=True)
            elif kind == "violation":
                rig.record(events.ClientViolation(client=plan, job="1", repository="main",
                                                  plan=plan, kind=how, details="x"))  # fmt: skip
            elif kind == "later":
                rig.later(seconds=int(how))
            elif kind == "look":
                rig.look()
            elif kind == "deliver":
                deliver(rig, how)
            else:
                rig.kill()
                rig.open()
            check(rig)
        rig.store.close()
