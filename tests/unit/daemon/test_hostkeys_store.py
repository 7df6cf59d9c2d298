"""Host keys belong to their client; those of the file that older releases kept come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from borgcube.core.errors import InvalidInput
from borgcube.core.home import init_home, known_hosts_file
from borgcube.core.hostkeys import HostKey
from borgcube.core.model import Client
from borgcube.core.store import Store
from borgcube.daemon import hostkeys
from tests.unit.daemon.conftest import Refused, RunningDaemon


def key(text: bytes, algorithm: str = "ssh-ed25519") -> HostKey:
    name = algorithm.encode()
    return HostKey(algorithm, len(name).to_bytes(4, "big") + name + text)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return init_home(tmp_path / "home")


def test_an_old_home_keeps_what_it_trusted_once(home: Path) -> None:
    file = known_hosts_file(home)
    file.write_text("\n".join([
        f"web {key(b'web').text} a comment", f"web,192.0.2.1 {key(b'r', 'ssh-rsa').text}",
        f"[far]:2222 {key(b'far').text}", f"* {key(b'every').text}",
        f"@cert-authority * {key(b'ca').text}", f"|1|salt=|hash= {key(b'hashed').text}", "# x", "",
    ]))  # fmt: skip
    store = Store.open(f"file://{home}/store/borgcube.fs")
    with store.transact() as root:
        for name, host, port in (("web", "web", 22), ("far", "far", 2222), ("odd", "far", 22)):
            root.clients.add(Client(name=name, host=host, port=port, transport="openssh"))
    hostkeys.take_over(store, home)
    expected = {
        "web": (key(b"web").text, key(b"r", "ssh-rsa").text), "far": (key(b"far").text,), "odd": (),
    }  # fmt: skip
    file.write_text(f"[far]:2222 {key(b'evil').text}\nfar {key(b'evil').text}\n")
    hostkeys.take_over(store, home)  # once only: the file does not count any more
    with store.reading() as root:
        found = {one.name: tuple(one.host_keys) for one in root.clients.rows.values()}
    store.close()
    assert found == expected


def test_only_lines_of_this_one_host_are_accepted() -> None:
    good = f"[web]:2222 {key(b'a').text}"
    assert hostkeys.accepted([good], host="web", port=2222) == [key(b"a")]
    for line in (f"web {key(b'a').text}", f"[web]:2222,other {key(b'a').text}",
                 f"* {key(b'a').text}", f"@revoked {good}",
                 f"{good}\n* {key(b'b').text}"):  # fmt: skip
        with pytest.raises(InvalidInput):
            hostkeys.accepted([line], host="web", port=2222)
    for none in ([], [good] * 21):
        with pytest.raises(InvalidInput):
            hostkeys.accepted(none, host="web", port=2222)


def test_a_key_takes_the_place_of_one_of_its_type() -> None:
    before = (key(b"old").text, key(b"r", "ssh-rsa").text)
    assert hostkeys.merged(before, [key(b"new")]) == (key(b"r", "ssh-rsa").text, key(b"new").text)


def test_keys_go_with_their_client(daemon: RunningDaemon, tmp_path: Path) -> None:
    (tmp_path / "offered").write_text(f"{key(b'a').text}\n")
    options = {"offered": str(tmp_path / "offered")}
    for name in ("one", "two"):
        daemon.call("client.add", name=name, transport="faraway", host="web", options=options)
    line = f"web {key(b'a').text}"
    daemon.call("client.trust", name="one", lines=[line])
    assert daemon.call("client.host_keys", name="one")["known"]
    assert not daemon.call("client.host_keys", name="two")["known"], "trust is of one client"
    daemon.call("client.set", name="one", host="elsewhere")
    daemon.call("client.set", name="one", host="web")
    assert not daemon.call("client.host_keys", name="one")["known"], "it was another machine"
    daemon.call("client.trust", name="one", lines=[line])
    daemon.call("client.remove", name="one")
    daemon.call("client.add", name="one", transport="faraway", host="web", options=options)
    assert daemon.call("client.host_keys", name="one")["trusted"] == []
    for host in ("web,*", "web\u2028", "root@web", "*"):
        with pytest.raises(Refused, match="host"):
            daemon.call("client.set", name="two", host=host)
        with pytest.raises(Refused, match="host"):
            daemon.call("client.add", name="three", transport="faraway", host=host)
