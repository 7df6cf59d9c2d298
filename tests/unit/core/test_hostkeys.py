"""Host keys are an algorithm and bytes; a client's address is one host; nothing else gets in."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest

from borgcube.core.errors import InvalidInput
from borgcube.core.home import known_hosts_file
from borgcube.core.hostkeys import (
    HostKey,
    check_host,
    known_hosts_for,
    parse_line,
    write_known_hosts,
)
from borgcube.core.transports import ClientAddress

KEY = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + b"k" * 36)
WORD = KEY.text.split(" ")[1]
OTHER = base64.b64encode(b"\0\0\0\x07ssh-rsa" + b"k" * 40).decode()


def test_a_key_is_what_it_was() -> None:
    assert HostKey.parse(KEY.text) == KEY
    assert parse_line(f"[h]:22 {KEY.text} a comment") == ("[h]:22", KEY)
    assert KEY.fingerprint.startswith("SHA256:") and len(KEY.fingerprint) == 50


@pytest.mark.parametrize("text", [
    "", "ssh-ed25519", f"ssh-ed25519  {WORD}", f" ssh-ed25519 {WORD}", f"ssh-ed25519 {WORD} more",
    f"ssh-ed25519 {WORD}\n@cert-authority * {KEY.text}", f"ssh-rsa {WORD}",
    f"ssh-ed25519 {OTHER}", f"ssh-ed25519 {WORD[:-4]}====", f"ssh-ed25519 {WORD}!",
    f"SSH-ED25519 {WORD}", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    f"ssh-ed25519-cert-v01@openssh.com {WORD}", f"ssh-ed25519 {'A' * 20_000}",
    f"ssh-ed25519 {WORD}\x85", "@revoked * ssh-ed25519",
])  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        HostKey.parse(text)


@pytest.mark.parametrize("line", [
    f"@cert-authority *.example {KEY.text}", f"@revoked * {KEY.text}", f"|1|a=|b= {KEY.text}",
    f"# {KEY.text}", f"host {KEY.text}".replace(" ", "", 1), "host 1024 35 1234567",
])  # fmt: skip
def test_a_line_with_a_marker_or_a_hash_is_no_key_of_a_host(line: str) -> None:
    with pytest.raises(InvalidInput):
        parse_line(line)


@pytest.mark.parametrize(
    "host", ["web1", "web-1.example.org", "a_b.local.", "192.0.2.7", "2001:db8::1", "fe80::1%eth0"]
)
def test_one_host_is_taken(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize("host", [
    "", "-oProxyCommand=id", "a,b", "*", "web?", "!web", "a b", "user@web", "web:22", "[web]:22",
    "web\n* ssh-rsa AAAA", "@cert-authority", "|1|x|y", "a..b", ".", "web.-x", "web%h",
    "fe80::1%$(id)", "192.0.2.7,192.0.2.8", "ä.example", "x" * 64, "a." * 127 + "aa", "#",
])  # fmt: skip
def test_what_is_not_one_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput):
        check_host(host)


def test_a_known_hosts_file_names_one_host(tmp_path: Path) -> None:
    address = ClientAddress("web", "openssh", "web1", 2222, host_keys=(KEY.text,))
    path = known_hosts_for(address, tmp_path, tmp_path)
    assert path.read_text() == f"[web1]:2222 {KEY.text}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidInput):
        write_known_hosts(path, host="web1,*", port=22, keys=[KEY])
    bad = dataclasses.replace(address, host_keys=(f"{KEY.text}\n* {KEY.text}",))
    with pytest.raises(InvalidInput):
        known_hosts_for(bad, tmp_path, tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        known_hosts_for(address, tmp_path, tmp_path)


def test_the_old_file_counts_for_an_ssh_config_without_a_key_only(tmp_path: Path) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    known_hosts_file(home).write_text(f"web1 {KEY.text}\n")
    plain = ClientAddress("web", "openssh", "web1")
    assert known_hosts_for(plain, home, run).read_text() == ""
    config = dataclasses.replace(plain, options={"ssh_config": "/etc/c"})
    assert known_hosts_for(config, home, run) == known_hosts_file(home)
    trusted = dataclasses.replace(config, host_keys=(KEY.text,))
    assert known_hosts_for(trusted, home, run).parent == run
