"""Testing a client step by step, and a host key that changed."""

from __future__ import annotations

import re

from borgcube.core.hostkeys import HostKey
from borgcube.testing.consolerig import ConsoleRig


def key(text: bytes) -> HostKey:
    return HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + text)


def test_the_way_to_a_client_is_tested_step_by_step(console: ConsoleRig) -> None:
    page = console.visitor("olga").post("/clients/web/test").text
    assert "web can be backed up" in page and "Linux x86_64" in page and "borg 1.4.5" in page
    assert console.visitor("vera").post("/clients/web/test").status == 403
    console.call("client.add", name="lost", transport="local", host="no.such.name.invalid")
    page = console.visitor("olga").post("/clients/lost/test").text
    assert "lost cannot be backed up now" in page and "leads to no address" in page
    assert page.count("Not tried.") == 5 and "/clients/lost/edit" in page


def test_a_host_key_that_changed_shows_old_and_new_and_is_trusted_only_on_purpose(
    console: ConsoleRig,
) -> None:
    offered = console.place / "offered"
    offered.write_text(f"{key(b'new').text}\n")
    options = {"offered": str(offered)}
    console.call("client.add", name="moved", transport="faraway", host="moved.example", port=2222,
                 options=options)  # fmt: skip
    before = f"[moved.example]:2222 {key(b'old').text}"
    console.call("client.trust", name="moved", lines=[before])
    visitor = console.visitor("olga")
    path = "/clients/moved/connect?state=compare"
    page = visitor.get(path).text
    assert "shows another host key than before" in page
    shown = re.findall(r"SHA256:[\w+/]{43}", page)
    assert len(shown) == 2 and shown[0] != shown[1]
    (line,) = re.findall(r'name="line" value="([^"]+)"', page)
    assert visitor.post("/clients/moved/trust", {"line": line}).status == 303
    now = console.call("client.host_keys", name="moved")
    assert now["known"] and [one["line"] for one in now["trusted"]] == [line]
    assert line == f"[moved.example]:2222 {key(b'new').text}"
    assert "another host key" not in visitor.get(path).text
    audit = console.visitor("ada").get("/audit").text
    assert "client.trust" in audit and "olga" in audit
