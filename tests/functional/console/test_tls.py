"""TLS with a given certificate, and a reverse proxy in front: real connections."""

from __future__ import annotations

import http.client
import json
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from borgcube.core.config import ConsoleConfig
from borgcube.core.errors import ConfigurationError
from borgcube.testing.certificates import make_certificate
from borgcube.testing.consolerig import ConsoleRig, Visitor
from borgcube.web.service import check_certificate
from borgcube.web.settings import WebSettings
from tests.functional.console.conftest import FAKE, REAL, add_fleet
from tests.functional.console.test_live import Socket, finished


def tls(certificate: Path) -> str:
    key = certificate.with_suffix(".key")
    return f"certificate = {json.dumps(str(certificate))}\nkey = {json.dumps(str(key))}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleRig]:
    place = tmp_path_factory.mktemp("tls")
    certificate, _ = make_certificate(place)
    with ConsoleRig(place, config=tls(certificate), python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        yield rig


def visitor(rig: ConsoleRig) -> Visitor:
    return Visitor(rig.port, tls=ssl.create_default_context(cafile=rig.place / "console.pem"))


def test_everything_works_over_tls_and_cookies_stay_on_it(secure: ConsoleRig) -> None:
    made = visitor(secure)
    first = made.get("/login")
    assert "; secure" in first.headers["set-cookie"].lower()
    assert first.headers["set-cookie"].startswith("__Host-borgcube_")
    answer = made.log_in("ada")
    assert answer.status == 303
    for word in ("Secure", "HttpOnly", "SameSite=Lax"):
        assert word in answer.headers["set-cookie"]
    # With these names a browser refuses what another host, or plain HTTP, would set.
    for line in (first.headers["set-cookie"], answer.headers["set-cookie"]):
        assert line.startswith("__Host-") and "Path=/;" in line and "Domain" not in line
    plain = {name.removeprefix("__Host-"): value for name, value in made.cookies.items()}
    assert Visitor(secure.port, plain, tls=made.tls).get("/").status == 303
    page = made.get("/")
    assert page.status == 200
    assert page.headers["strict-transport-security"].startswith("max-age=31536000")
    feed = Socket(made)
    feed.until(lambda: feed.messages)
    started = made.post("/plans/web-etc/backup")
    assert started.status == 303 and started.headers["location"].startswith((made.origin, "/jobs/"))
    finished(feed, started.location.rsplit("/", 1)[-1])
    feed.socket.close()
    assert secure.cli("console", "link").split()[-1].startswith(f"{made.origin}/link?")


def test_a_page_over_plain_http_is_not_served_on_a_tls_port(secure: ConsoleRig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", secure.port, timeout=30)
    connection.request("GET", "/login")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()


def test_old_versions_of_tls_are_refused(secure: ConsoleRig) -> None:
    context = ssl.create_default_context(cafile=secure.place / "console.pem")
    # Below this a client of today does not go by itself.
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Visitor(secure.port, tls=context).get("/login")


def refused(certificate: Path | str, key: Path | str) -> str:
    settings = WebSettings.of(ConsoleConfig(certificate=str(certificate), key=str(key)))
    with pytest.raises(ConfigurationError) as caught:
        check_certificate(settings)
    assert "console.key" in caught.value.next_step
    return caught.value.message


def test_a_certificate_that_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    assert "does not belong to the certificate" in refused(certificate, other)
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    assert "not PEM files" in refused(rubbish, key) and "not PEM files" in refused(key, key)
    sealed = tmp_path / "sealed.key"
    loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
    sealed.write_bytes(loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    ))  # fmt: skip
    assert "sealed with a passphrase" in refused(certificate, sealed)


def test_backups_go_on_when_the_console_has_a_wrong_key(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path)
    make_certificate(tmp_path, "other")[1].replace(certificate.with_suffix(".key"))
    rig = ConsoleRig(tmp_path, config=tls(certificate), python_path=(str(FAKE),), disabled=REAL)
    rig.start_daemon()
    try:
        told = [one["message"] for one in rig.call("doctor")]
        assert any("does not belong to the certificate" in message for message in told)
        add_fleet(rig)
    finally:
        rig.stop()


def test_behind_a_proxy_addresses_and_cookies_are_those_that_people_see(tmp_path: Path) -> None:
    """As a proxy would send them: with the prefix taken off or not, from a trusted address."""
    config = 'url = "https://backup.example.org/cube"\ntrusted_proxies = ["127.0.0.1"]'
    with ConsoleRig(tmp_path, config=config, python_path=(str(FAKE),), disabled=REAL) as rig:
        add_fleet(rig)
        for prefix in ("/cube", ""):
            person = rig.visitor()
            person.extra = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
            page = person.get(f"{prefix}/login")
            assert 'action="/cube/login"' in page.text and 'href="/cube/static-' in page.text
            assert "Path=/cube" in page.headers["set-cookie"]
            assert page.headers["set-cookie"].startswith("__Secure-borgcube_")
            token = person.token(f"{prefix}/login")
            logged_in = person.post(
                f"{prefix}/login",
                {"name": "ada", "password": "correct horse battery", "csrf_token": token},
                form=f"{prefix}/login", headers={"Origin": "https://backup.example.org"},
            )  # fmt: skip
            assert logged_in.status == 303
            assert logged_in.headers["location"] in ("/cube/", "https://backup.example.org/cube/")
            assert "Secure" in logged_in.headers["set-cookie"]
            assert person.get(f"{prefix}/jobs").status == 200
        assert "203.0.113.9" in person.get("/audit").text
        assert person.get("/cube/jobs", Host="evil.example").status == 421
        # Whoever reaches the port without the proxy cannot pretend.
        link = rig.cli("console", "link").split()[-1]
        assert link.startswith("https://backup.example.org/cube/link?token=")
