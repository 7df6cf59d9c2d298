"""Promises 1, 2, 4 and 9: every attack is refused, named and leaves no trace.

Each of :mod:`borgcube.testing.attacks` runs against a real gate and a real vault, while an
honest client's session is open in the same repository and goes on. After each, a judge that asks
stock borg alone (:mod:`borgcube.testing.judge`) looks at all that changed. At the end the
honest archives are whole, and plain borg finds nothing wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from borgcube.core.errors import JobFailed
from borgcube.plugins.borg.gate.confine import MEMORY_BYTES
from borgcube.plugins.borg.vaultclient import VaultSession
from borgcube.plugins.borg.wire import (
    COMMIT,
    GET,
    JSON,
    MANIFEST,
    PUT,
    PUT_HEADER,
    Wire,
    WireError,
)
from borgcube.testing.attacks import OWN, SECRET, Attack, all_attacks
from borgcube.testing.hostile import MANIFEST_ID, Peer, Refused, borg_packed, file_item, peak_bytes
from borgcube.testing.judge import Judge
from borgcube.testing.rig import PASSPHRASE, Rig, stock_borg

GATE_BYTES = 200 << 20
VAULT_BYTES = 700 << 20
ATTACKS = all_attacks()
# What borg says of the archive with files below a link, of which it extracts the link alone.
LINKER = re.compile(r"^way/.*a parent directory is a symlink")


class Target:
    """A repository with the archives of two clients, and an honest session that stays open."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.socket = rig.socket
        for name, content in (("good", SECRET), ("bad", OWN)):
            tree = rig.root / name
            tree.mkdir()
            (tree / "file").write_bytes(content)
            (tree / "other").write_text("a file that may be restored")
            archive = "good-1" if name == "good" else "bad-0"
            assert rig.backup(archive, tree, plan=name, domain=f"client:{name}").state == "done"
        self.honest = self.open("honest")
        self.uploaded: list[tuple[bytes, int, int]] = []
        self.plain = b""
        self.admitted: set[str] = set()
        self.judge = Judge(rig.path, PASSPHRASE, cache=rig.cache, work=rig.root / "judge")
        self.before = self.judge.snapshot()

    def judged(self) -> None:
        """Ask the judge, who looks closer at what changed since he was asked last."""
        self.judge.judge(unchanged=self.before, tolerated=LINKER).require()

    def open(self, name: str) -> Peer:
        peer = Peer(self.socket, archive=f"{name}-1", plan=name, domain=f"client:{name}")
        peer.greet()
        return peer

    def admit(self, peer: Peer) -> dict[str, Any]:
        """Commit what a peer wrote, end its session and return the vault's figures."""
        peer.commit()
        result = peer.session.end()
        assert result is not None
        self.admitted.add(peer.archive_name)
        peer.close()
        return result

    def committed(self) -> dict[str, str]:
        """Return digests of what is committed: Borg's index, and its cache with all counts."""
        cache = self.rig.state_dir / "base" / ".cache" / "borg"
        files = [*self.rig.path.glob("index.*"), *self.rig.path.glob("hints.*")]
        files += [path for path in cache.glob("*/*") if path.name in ("chunks", "config")]
        assert len(files) >= 4, files
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

    def go_on(self) -> None:
        """Let the honest session store one more chunk."""
        plain = os.urandom(100)
        self.uploaded.append((self.honest.put(plain), len(plain), len(plain)))
        self.plain += plain

    @property
    def vault_pid(self) -> int:
        assert self.rig.vault is not None and self.rig.vault.poll() is None, "the vault is gone"
        return self.rig.vault.pid


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Rig(tmp_path_factory.mktemp("rig")) as rig:
        target = Target(rig)
        with target.judge:
            yield target


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_no_client(attack: Attack, target: Target) -> None:
    """Nothing a client tries works; see the name of the attack."""
    before = target.committed()
    Path(f"/proc/{target.vault_pid}/clear_refs").write_text("5")  # measure its peak anew
    peer = Peer(target.socket, **attack.request(target.rig.root))
    try:
        if attack.greet:
            peer.greet()
        with suppress(Refused):
            attack.run(peer)
        kind, words = peer.refusal()
        if attack.by == "vault":
            assert kind == "archive-refused", words
            kind, words = peer.finish()
        else:
            assert peer.finish() == ("", "")
        assert kind == attack.kind, words
        assert len(words) > 10 and words.isprintable(), words
        assert peer.gate_peak < GATE_BYTES < MEMORY_BYTES
        assert peak_bytes(target.vault_pid) < VAULT_BYTES
    finally:
        peer.close()
    if attack.kind != "client-clock":  # which an honest client may have: its chunks are kept
        assert target.committed() == before
    target.judged()
    target.go_on()


def test_there_are_many_attacks_and_no_two_of_one_name() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 150


def test_the_manifest_a_client_gets_lists_no_archive(target: Target) -> None:
    peer = target.open("reader")
    try:
        envelope = peer.call("get", id=MANIFEST_ID)
        assert envelope == bytes.fromhex(peer.terms["manifest"])
        for name in (b"good-1", b"bad-0"):
            assert name not in envelope
    finally:
        peer.close()


def test_a_restore_serves_what_was_selected(target: Target) -> None:
    root = target.rig.root
    peer = Peer(target.socket, "restore", archive="bad-0", paths=[f"{root}/bad/other"])
    try:
        peer.greet()
        chunk = peer.call("get", id=peer.id_hash(b"a file that may be restored"))
        assert chunk[:1] == peer.type_byte and len(chunk) > 10
    finally:
        peer.close()


def test_a_forged_tag_of_an_archive_never_reaches_the_repository(target: Target) -> None:
    """The client's tag proves nothing, so the vault makes its own; plain borg checks that one."""
    peer = target.open("forger")
    tag = {"type": "HKDF_HMAC_SHA512", "salt": bytes(64), "hmac": b"\x66" * 64}
    peer.archive(peer.honest_items(), tam=tag)
    assert bytes.fromhex(target.admit(peer)["id"]) != MANIFEST_ID
    target.judged()


def test_words_of_a_client_in_an_archive_are_escaped(target: Target) -> None:
    """plain borg prints host and user as they are in the archive."""
    peer = target.open("painter")
    peer.archive(
        peer.honest_items(), hostname="h\x1b[2J\x07", username=b"\xff\xfe", cmdline=["borg\n\r"]
    )
    target.admit(peer)
    target.judged()
    place = f"{target.rig.path}::{peer.archive_name}"
    shown = target.rig.plain_borg("--bypass-lock", "info", "--json", place)
    assert shown.returncode == 0, shown.stderr
    (archive,) = json.loads(shown.stdout)["archives"]
    for words in (archive["hostname"], archive["username"], *archive["command_line"]):
        assert words and words.isprintable(), words
    assert archive["hostname"] == r"h\x1b[2J\x07"


TAKEN_OVER = {
    "an unknown frame": [(ord("Z"), b"x")],
    "a chunk without a header": [(PUT, b"short")],
    "a chunk of no data": [(PUT, PUT_HEADER.pack(b"\x05" * 32, 5))],
    "a commit before all else": [(COMMIT, b"")],
    "a commit without an end": [(MANIFEST, b"\x80"), (COMMIT, b""), (COMMIT, b"")],
    "chunks after a commit": [
        (COMMIT, b""), (PUT, PUT_HEADER.pack(b"\x05" * 32, 5) + b"\0\0after")
    ],
    "a read in a backup": [(GET, b"\x05" * 32)],
    "a manifest of thirty megabytes": [(MANIFEST, bytes(30 << 20)), (COMMIT, b"")],
    "JSON that is deep": [(JSON, b"[" * 100_000)],
    "an attach to itself": [(JSON, b'{"attach": "x"}')],
}  # fmt: skip


@pytest.mark.parametrize("frames", TAKEN_OVER.values(), ids=TAKEN_OVER)
def test_a_gate_that_was_taken_over_ends_no_session_but_its_own(
    frames: list[tuple[int, bytes]], target: Target
) -> None:
    """The vault believes a gate no more than it must: here the gate itself is the attacker."""
    before = target.committed()
    request = {"op": "backup", "archive": "bad-1", "plan": "bad", "domain": "client:bad"}
    session = VaultSession(target.socket, request)
    line = Wire(session.data_socket())
    with suppress(WireError):
        for kind, payload in frames:
            line.send(kind, payload)
            if kind == COMMIT:
                assert line.receive_json() == {"ok": False}
    with suppress(JobFailed):
        assert session.end(discard=True) is None
    line.close()
    session.close()
    assert target.committed() == before
    target.judged()
    target.go_on()


def test_an_archive_cannot_write_outside_its_restore(target: Target) -> None:
    """A link out of the tree may be stored; nothing is restored through it on the server."""
    outside = target.rig.root / "outside"
    outside.mkdir()
    (outside / "there").write_text("as it was")
    peer = target.open("linker")
    link = {**file_item("way", []), "mode": 0o120777, "source": str(outside)}
    del link["chunks"], link["size"]
    chunk = (peer.put(b"run me"), 6, 6)
    peer.archive([link, file_item("way/made", [chunk]), file_item("way/there", [chunk])])
    target.admit(peer)
    with suppress(JobFailed):
        target.rig.restore("linker-1", target.rig.root / "restored", server_side=True)
    assert (target.rig.root / "restored" / "way").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["there"]
    assert (outside / "there").read_text() == "as it was"
    target.judged()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("references", [200_000, 1_000_000])
def test_a_chunk_referenced_without_end_stays_one_chunk(references: int, target: Target) -> None:
    """A large file of zeros looks like this, so it is taken, in bounded memory."""
    Path(f"/proc/{target.vault_pid}/clear_refs").write_text("5")
    peer = target.open(f"zeros{references}")
    own = (peer.put(b"fine"), 4, 4)
    stream = b"".join(
        [
            b"\x89\xa6chunks\xdd" + references.to_bytes(4, "big"),
            (b"\x93\xda\x00\x20" + own[0] + b"\x04\x04") * references,
            b"\xa3gid\x00\xa5group\xa1g\xa4mode\xcd\x81\xa4\xa5mtime\x01\xa4path\xa1z",
            b"\xa4size" + borg_packed(4 * references) + b"\xa3uid\x00\xa4user\xa1u",
        ]
    )
    ids = []
    for start in range(0, len(stream), 16 << 20):
        piece = stream[start : start + (16 << 20)]
        ids.append(peer.id_hash(piece))
        peer.put_packed(ids[-1], zlib.compress(piece, 1))
    peer.archive([], ids=ids)
    result = target.admit(peer)
    assert result["chunks"] == references and result["size"] == 4 * references
    target.judged()
    assert peak_bytes(target.vault_pid) < VAULT_BYTES


def test_after_all_attacks_every_honest_archive_is_whole(target: Target) -> None:
    """Last in the module: the session that ran beside all attacks ends as if alone."""
    target.honest.archive([file_item("beside", target.uploaded)])
    result = target.admit(target.honest)
    assert result["size"] == len(target.plain) == 100 * len(target.uploaded)
    target.judged()
    rig = target.rig
    assert rig.stop_vault() == 0
    try:
        check = rig.plain_borg("check", "--verify-data", str(rig.path))
        assert check.returncode == 0 and not check.stderr.strip(), check.stderr
        listed = json.loads(rig.plain_borg("list", "--json", str(rig.path)).stdout)["archives"]
        names = {archive["name"] for archive in listed}
        ours = {"good-1", "bad-0", *target.admitted}
        assert ours <= names
        # Of the clients with a wrong clock, each attempt under its own name.
        left = names - ours
        assert all(re.fullmatch(r"bad-1(\.\d)?\.partial", name) for name in left), names
        info = rig.plain_borg("info", "--json", str(rig.path), "-a", "*")
        for shown in json.loads(info.stdout)["archives"]:
            assert shown["hostname"].isprintable() and shown["username"].isprintable()
        out = rig.root / "out"
        out.mkdir()
        environment = {
            **os.environ, "BORG_PASSPHRASE": "correct horse",
            "BORG_BASE_DIR": str(rig.root / "plain"),
        }  # fmt: skip
        for archive in sorted(one for one in ours if not one.startswith(("zeros", "linker"))):
            subprocess.run(
                [stock_borg(), "extract", f"{rig.path}::{archive}"], cwd=out, timeout=100,
                env=environment, check=True,
            )  # fmt: skip
        assert (out / "beside").read_bytes() == target.plain
        for name, content in (("good", SECRET), ("bad", OWN)):
            restored = out / str(rig.root / name / "file").lstrip("/")
            assert restored.read_bytes() == content
    finally:
        rig.start_vault()
