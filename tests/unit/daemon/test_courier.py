"""Messages arrive: over a real mail server and real HTTP, through processes of their own."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.notifiers import DeliveryFailed, Message
from borgcube.plugins import notify_mail
from borgcube.plugins.notify_webhook import http
from borgcube.plugins.notify_webhook.signing import signature, verify
from borgcube.testing.certificates import make_certificate
from borgcube.testing.consolerig import free_port
from tests.unit.daemon.alarmrig import Rig
from tests.unit.daemon.receivers import Web, mail_server, until, web_server

SECRET = "a secret that nobody guesses"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.fleet("web", "mail")
    yield made
    made.alarms.courier.close(timeout_s=0)
    made.store.close()


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


def hook(rig: Rig, url: str, name: str = "hook") -> None:
    options = {"url": url, "secret": SECRET, "reach": "anywhere", "ca_file": ""}
    rig.channel(name, **options)


def mailer(rig: Rig, port: int) -> None:
    rig.channel(
        "post", "mail", host="127.0.0.1", port=port, security="none", user="", password="",
        sender="BorgCube <cube@example.org>", recipients=["ops@example.org"], ca_file="",
    )  # fmt: skip


def test_mail_arrives_as_text_and_html_with_one_identity(rig: Rig) -> None:
    with mail_server() as box:
        mailer(rig, box.port)
        rig.rule(channel="post")
        rig.run("web", "failed")
        rig.settle()
        (mail,) = box.mails
    assert mail["Subject"] == "[vault] Plan web: the backup failed"
    assert mail["To"] == "ops@example.org" and mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_body(("plain",)).get_content()
    page = mail.get_body(("html",)).get_content()
    for words in ("No way to it. This is the network's problem.", "Next step: Is it up?"):
        assert words in " ".join(text.split())
    assert "<script" not in page and "No way to it." in page
    (sent,) = rig.deliveries()
    assert sent["state"] == "sent" and sent["key"] in mail["Message-ID"]
    assert sent["receipt"] == "taken by 127.0.0.1 for 1 recipient"


def test_a_mail_server_is_trusted_by_its_certificate_and_trusts_by_a_password(
    rig: Rig, tmp_path: Path
) -> None:
    """Over STARTTLS, which is never left out: a mail without it is not sent."""
    certificate, key = make_certificate(tmp_path, "mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    base = {"host": "127.0.0.1", "security": "starttls", "user": "cube", "port": 0,
            "sender": "cube@example.org", "recipients": ["ops@example.org"]}  # fmt: skip
    with mail_server(context) as safe, mail_server() as plain:
        good = {"port": safe.port, "password": "open sesame", "ca_file": str(certificate)}
        ways = {
            "good": good, "wrong": {**good, "password": "guess"},
            "unknown": {**good, "ca_file": ""}, "plain": {**good, "port": plain.port},
        }  # fmt: skip
        said = {}
        for name, way in ways.items():
            options = {**base, **way}
            message = Message(key="0" * 32, kind="test", severity="info", subject="s", text="t")
            try:
                said[name] = notify_mail.Mail().deliver(message, options, timeout_s=20)
            except DeliveryFailed as error:
                said[name] = str(error)
        assert len(safe.mails) == 1 and safe.users == ["cube"] and plain.mails == []
    assert said["good"].startswith("taken by")
    assert "The login was refused" in said["wrong"]
    assert "No safe connection" in said["unknown"] and "STARTTLS" in said["plain"]
    assert "guess" not in "".join(said.values())


def test_one_wrong_recipient_does_not_keep_the_others_from_it(rig: Rig) -> None:
    with mail_server() as box:
        box.refuse["gone@example.org"] = "550 no such user"
        rig.channel(
            "post", "mail", host="127.0.0.1", port=box.port, security="none", user="",
            password="", sender="cube@example.org", ca_file="",
            recipients=["ops@example.org", "gone@example.org"],
        )  # fmt: skip
        rig.rule(channel="post")
        rig.run("web", "failed")
        rig.settle()
        assert [mail.given_to for mail in box.mails] == [["ops@example.org"]]
    (sent,) = rig.deliveries()
    assert sent["state"] == "sent" and "refused: gone@example.org" in sent["receipt"]


def test_apprise_delivers_and_its_secrets_stay_out_of_what_it_says(rig: Rig, web: Web) -> None:
    address = f"json://user:sesame@127.0.0.1:{web.port}/hook"
    rig.channel("chat", "apprise", addresses=address)
    rig.rule(channel="chat")
    rig.run("web", "failed")
    web.status = 500
    rig.settle()
    (waiting,) = rig.deliveries(channel="chat")
    assert waiting["state"] == "queued" and "Apprise could not deliver" in waiting["error"]
    assert "sesame" not in waiting["error"]
    web.status = 200
    rig.later(minutes=5)
    rig.settle()
    assert [one["state"] for one in rig.deliveries(channel="chat")] == ["sent"]
    sent = json.loads(web.asked[-1][3])
    assert sent["title"] == "[vault] Plan web: the backup failed" and sent["type"] == "failure"


def test_the_receiver_of_the_manual_verifies_what_is_sent(rig: Rig, web: Web) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "notifications.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.+?)^```$", manual, re.MULTILINE | re.DOTALL)
    receiver: dict[str, Any] = {}
    exec(example, receiver)
    hook(rig, web.url)
    rig.rule()
    rig.run("web", "failed")
    rig.settle()
    ((_, _, headers, body),) = web.asked
    assert receiver["is_ours"](SECRET, headers, body)
    assert not receiver["is_ours"](SECRET, headers, body.replace(b"web", b"win"))


@pytest.mark.parametrize(
    ("address", "reach", "refused"),
    [
        ("127.0.0.1", "anywhere", False),
        ("127.0.0.1", "public", True),
        ("10.1.2.3", "public", True),
        ("::ffff:192.168.0.1", "public", True),
        ("169.254.169.254", "anywhere", True),
        ("::ffff:169.254.169.254", "anywhere", True),
        ("fe80::1%eth0", "anywhere", True),
        ("0.0.0.0", "anywhere", True),
        ("224.0.0.1", "anywhere", True),
        ("93.184.216.34", "public", False),
    ],
)
def test_where_a_webhook_may_go(address: str, reach: str, refused: bool) -> None:
    assert bool(http._refused(address, reach)) == refused


def test_nothing_is_lost_while_the_mail_server_is_down(rig: Rig) -> None:
    port = free_port()
    mailer(rig, port)
    rig.rule(channel="post")
    rig.run("web", "failed")
    waits = []
    for _ in range(4):
        rig.settle()
        with rig.store.reading() as root:
            channel = root.channels.find("name", "post")
            waits.append(datetime.fromisoformat(channel.not_before) - rig.now)
            assert "not reached" in channel.last_error
        rig.settle()  # not before its time
        rig.now += waits[-1]
    assert [wait.total_seconds() for wait in waits] == [60, 120, 240, 480]
    assert [one["attempts"] for one in rig.deliveries(channel="post")] == [4]
    assert [one["kind"] for one in rig.incidents(state="open")] == [
        "channel-failing",
        "plan-failed",
    ]
    rig.kill()
    rig.open()
    with mail_server(port=port) as box:
        rig.settle()
        assert len(box.mails) == 1
    assert [one["kind"] for one in rig.incidents(state="open")] == ["plan-failed"]


def test_a_message_is_given_up_after_days_and_that_is_an_event(rig: Rig) -> None:
    mailer(rig, free_port())
    rig.rule(channel="post")
    rig.run("web", "failed")
    for _ in range(3):
        rig.settle()
        rig.later(hours=40)
    rig.settle()
    assert rig.deliveries()[0]["state"] == "failed"
    with rig.store.reading() as root:
        assert "notification.failed" in [one["type"] for one in root.journal.since(0)]


def test_a_webhook_is_signed_and_says_everything(rig: Rig, web: Web) -> None:
    hook(rig, web.url)
    rig.rule()
    rig.run("web", "failed")
    rig.settle()
    ((method, path, headers, body),) = web.asked
    stamp, given = headers["X-BorgCube-Timestamp"], headers["X-BorgCube-Signature"]
    assert method == "POST" and path == "/hook"
    assert verify(SECRET, stamp, body, given, now=time.time())
    assert not verify(SECRET, stamp, body + b" ", given, now=time.time())
    assert not verify("another secret here", stamp, body, given, now=time.time())
    assert not verify(SECRET, stamp, body, given, now=time.time() + 400), "too old"
    assert not verify(SECRET, str(int(stamp) + 1), body, given, now=time.time())
    data = json.loads(body)
    assert data["key"] == headers["Idempotency-Key"] and data["server"] == "vault"
    assert data["items"][0]["key"] == "plan-failed:web" and "html" not in data


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}, "redirect (302)"),
        ({"status": 500}, "refused: 500"),
        ({"wait_s": 30.0}, "within 2 seconds"),
    ],
)
def test_a_webhook_that(rig: Rig, web: Web, behaviour: dict[str, Any], said: str) -> None:
    rig.alarms.courier._config = replace(
        rig.config, notify=replace(rig.config.notify, timeout_seconds=2)
    )
    vars(web).update(behaviour)
    hook(rig, web.url)
    rig.rule()
    rig.run("web", "failed")
    rig.settle()
    (only,) = rig.deliveries()
    assert only["state"] == "queued" and said in only["error"]
    assert len(web.asked) == 1, "nothing was followed"


def test_a_webhook_without_end_is_cut_off(rig: Rig, web: Web) -> None:
    web.status, web.body_bytes = 200, 1 << 30
    hook(rig, web.url)
    rig.rule()
    rig.run("web", "failed")
    rig.settle()
    assert rig.deliveries()[0]["state"] == "sent"
    until(lambda: "cut" in web.headers)


def test_a_server_that_hangs_holds_up_neither_the_daemon_nor_other_channels(
    rig: Rig, web: Web
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, says nothing
        mailer(rig, deaf.getsockname()[1])
        hook(rig, web.url)
        rig.rule("slow", "post")
        rig.rule("quick", "hook")
        rig.run("web", "failed")
        until(lambda: [rig.alarms.courier.wake(), rig.alarms.courier.step()] and web.asked)
        assert "post" in rig.alarms.courier._running
        # What is beyond the notifier's own patience is killed.
        rig.alarms.courier._running["post"].kill_at = 0
        rig.settle()
    (slow,) = rig.deliveries(channel="post")
    assert slow["state"] == "queued" and "no answer within" in slow["error"]


def test_after_a_death_between_sending_and_noting_it_comes_again_with_the_same_key(
    rig: Rig, web: Web
) -> None:
    hook(rig, web.url)
    rig.rule()
    rig.run("web", "failed")
    rig.alarms.courier.step()
    until(lambda: web.asked)
    rig.kill()
    rig.open()
    rig.settle()
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in web.asked]
    assert len(keys) == 2 and keys[0] == keys[1]
    assert [one["state"] for one in rig.deliveries()] == ["sent"]


def test_messages_of_a_channel_keep_their_order(rig: Rig, web: Web) -> None:
    hook(rig, web.url)
    rig.rule()
    web.status = 500
    for plan, state in (("web", "failed"), ("mail", "failed"), ("web", "done")):
        rig.run(plan, state)
        rig.settle()
    web.status = 204
    for _ in range(3):
        rig.later(hours=2)
        rig.settle()
    sent = [json.loads(body)["items"] for *_, body in web.asked][1:]
    assert [[(one["what"], one["plan"]) for one in items] for items in sent] == [
        [("opened", "web")],
        [("opened", "mail"), ("over", "web")],
    ]


def test_a_heartbeat_beats_while_all_is_well(rig: Rig, web: Web) -> None:
    rig.channel("watcher", "heartbeat", url=web.url, every_minutes=1, method="GET",
                silent_in_trouble=True, reach="anywhere", ca_file="")  # fmt: skip
    rig.settle()
    assert [(method, path) for method, path, _, _ in web.asked] == [("GET", "/hook")]
    rig.settle()
    assert len(web.asked) == 1, "not before its time"
    rig.alarms.courier._beat_at.clear()
    rig.run("web", "failed")
    rig.settle()
    assert len(web.asked) == 1, "silent in trouble"
    rig.alarms.courier._beat_at.clear()
    rig.run("web")
    rig.settle()
    assert len(web.asked) == 2
    assert rig.deliveries() == [], "signs of life are not kept"


def test_the_signature_is_that_of_its_description() -> None:
    # Computed with: printf '1700000000.{}' | openssl dgst -sha256 -hmac 'key'
    digest = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
    assert signature("key", 1700000000, b"{}") == f"v1={digest}"
