"""A real daemon that is killed while it tells, and a real one that tells at all."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

from tests.unit.daemon.conftest import RunningDaemon
from tests.unit.daemon.receivers import until, web_server

SECRET = "a secret that nobody guesses"


def test_a_daemon_killed_while_it_tells_tells_again_with_the_same_key(
    daemon: RunningDaemon, backup: Any
) -> None:
    with web_server() as web:
        web.wait_s = 60  # the answer never comes in time
        daemon.call("channel.add", name="hook", notifier="webhook",
                    options={"url": web.url, "secret": SECRET})  # fmt: skip
        daemon.call("rule.add", name="all", channel="hook", kinds=["plan-failed"], group_s=0)
        daemon.ended(backup("cause"))
        until(lambda: web.asked)
        daemon.stop(signal.SIGKILL)
        web.wait_s = 0
        daemon.start()
        until(lambda: daemon.call("delivery.list", state="sent"))
        (sent,) = daemon.call("delivery.list")
        keys = [headers["Idempotency-Key"] for _, _, headers, _ in web.asked]
        assert keys == [sent["key"]] * 2 and sent["attempts"] == 2
        bodies = [json.loads(body)["items"] for *_, body in web.asked]
        assert bodies[0] == bodies[1] and len(bodies[0]) == 1
        assert len(daemon.call("incident.list")) == 1
        # The plan's next backup is the end of it, told once.
        daemon.call("plan.set", name="plan-cause", comment="plain")
        daemon.ended(daemon.call("backup.start", plan="plan-cause")["job_id"])
        until(lambda: len(daemon.call("delivery.list", state="sent")) == 2)
        time.sleep(1)
        assert [json.loads(body)["items"][0]["what"] for *_, body in web.asked][2:] == ["over"]


def test_what_the_console_asks_for_is_answered_while_a_notifier_hangs(
    daemon: RunningDaemon,
) -> None:
    with web_server() as web:
        web.wait_s = 60
        daemon.call("channel.add", name="hook", notifier="webhook",
                    options={"url": web.url, "secret": SECRET})  # fmt: skip
        made = daemon.call("channel.test", name="hook")
        until(lambda: web.asked)
        assert daemon.call("delivery.show", id=made["delivery"])["state"] == "sending"
        begun = time.monotonic()
        for _ in range(20):
            daemon.call("ping")
        assert time.monotonic() - begun < 30
        assert daemon.stop() == 0, "it does not wait for the notifier"
