"""A vault in this process, and clients that talk to it without borg, shell and gate.

For tests of what sessions do to each other: everything between the socket and the repository is
the real one, and a test can hold a thread at any line. :class:`LiveVault` is the vault,
:class:`DirectClient` one session, :func:`LiveVault.judge` the independent judge: Borg's own
reader counts what is stored, and plain borg checks it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from borg.cache import Cache
from borg.hashindex import CacheSynchronizer, ChunkIndex
from borg.repository import Repository

from borgcube.plugins.borg import borgenv
from borgcube.plugins.borg.engine import BorgEngine
from borgcube.plugins.borg.gate.verify import id_hash_for
from borgcube.plugins.borg.vault import main as vault_main
from borgcube.plugins.borg.vault.limits import FreeSpace
from borgcube.plugins.borg.vault.server import SessionServer
from borgcube.plugins.borg.vaultclient import VaultSession, ask
from borgcube.plugins.borg.wire import COMMIT, MANIFEST, PUT, PUT_HEADER, Wire, WireError
from borgcube.testing.hostile import MANIFEST_ID, Peer, file_item
from borgcube.testing.rig import PASSPHRASE, stock_borg

PATIENCE_S = 60.0


class DirectClient(Peer):
    """One backup session of an honest client, with the vault's own frames."""

    def __init__(self, socket_path: Path | str, archive: str, **request: Any) -> None:
        self.archive_name = archive
        plan = archive.rsplit("-", 1)[0]
        self.session = VaultSession(
            socket_path,
            {"op": "backup", "archive": archive, "plan": plan, "domain": f"client:{plan}",
             "job": archive, **request},
        )  # fmt: skip
        self.terms = self.session.terms
        self.id_hash = id_hash_for(self.terms["id_kind"], bytes.fromhex(self.terms["id_key"]))
        self.wire = Wire(self.session.data_socket())
        self.wire.sock.settimeout(PATIENCE_S)

    def put(self, plain: bytes, chunk_id: bytes | None = None) -> bytes:
        """Upload a chunk, or the manifest, and return its ID; nobody answers."""
        if chunk_id == MANIFEST_ID:
            self.wire.send(MANIFEST, plain)
            return chunk_id
        chunk_id = self.id_hash(plain)
        self.wire.send(PUT, PUT_HEADER.pack(chunk_id, len(plain)), b"\0\0", plain)
        return chunk_id

    def files(self, contents: Sequence[bytes]) -> list[dict[str, Any]]:
        """Upload contents, one file each, and return their items."""
        return [
            file_item(f"f{number:05d}", [(self.put(plain), len(plain), len(plain))])
            for number, plain in enumerate(contents)
        ]

    def commit(self) -> None:
        """Ask for the commit and wait for the answer; raises WireError when there is none."""
        self.wire.send(COMMIT)
        self.wire.receive_json()

    def taken(self) -> dict[str, Any]:
        """Wait until the vault has taken every frame sent so far; return its figures.

        The frame after them is none that a session takes, which ends the data connection; the
        session itself goes on.
        """
        self.wire.send(0xFF)
        with _quiet():
            self.wire.receive()
        return self.session.hear({"op": "figures"})

    def back_up(self, contents: Sequence[bytes]) -> dict[str, Any]:
        """Upload contents, commit and end; return the archive's figures. Raises JobFailed."""
        self.archive(self.files(contents))
        self.commit()
        return self.end()

    def end(self, *, discard: bool = False) -> dict[str, Any]:
        """End the session; return what was admitted. Raises JobFailed."""
        self.wire.close()
        return self.session.end(discard=discard) or {}

    def close(self) -> None:
        """Vanish, as a killed worker does."""
        self.wire.close()
        self.session.close()


@contextmanager
def _quiet() -> Iterator[None]:
    try:
        yield
    except WireError:
        pass


class LiveVault:
    """A repository and its vault, in threads of this process; a context manager.

    ``template`` is the directory of another one, closed and unused, to start from.
    """

    def __init__(self, root: Path, *, template: Path | None = None) -> None:
        self.root, self.path, self.state_dir = root, root / "repository", root / "state"
        self._environment = dict(os.environ)
        if template is not None:
            shutil.copytree(template, root)
        else:
            self.state_dir.mkdir(parents=True)
            BorgEngine().create(
                self.path, encryption="repokey", passphrase=PASSPHRASE, state_dir=self.state_dir
            )
        # A unix socket's path is short; test directories are not.
        self._place = tempfile.mkdtemp(prefix="bcv-")
        self.socket = Path(self._place) / "s"
        self.counts: dict[bytes, tuple[int, int]] = {}

    def __enter__(self) -> LiveVault:
        borgenv.prepare(self.state_dir)
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        shutil.rmtree(self._place, ignore_errors=True)
        os.environ.clear()
        os.environ.update(self._environment)

    def start(self) -> None:
        """Open the repository and serve it."""
        self.vault = vault_main._open(
            self.path, self.state_dir, PASSPHRASE, partial_days=14,
            space=FreeSpace(self.path, name="live", floor=0),
        )  # fmt: skip
        self.vault.partial_age = timedelta(days=14)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.unlink(missing_ok=True)
        self._server.bind(str(self.socket))
        self._server.listen(1024)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=SessionServer(self.vault, sock).run, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Close the repository; sessions that are open end as with a killed worker."""
        if not self._accepting.is_alive():
            return
        self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE_S)
        self._server.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a thread is stuck"
        self.counts = {key: entry[:2] for key, entry in self.vault.ledger.chunks.iteritems()}
        self.vault.readers.close()
        self.vault.ledger.opened.close(clean_up=self.vault.broken is not None)

    # Clients ----------------------------------------------------------------------------

    def client(self, archive: str, **request: Any) -> DirectClient:
        """Begin a session."""
        return DirectClient(self.socket, archive, **request)

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """Ask a question without a session; raises JobFailed."""
        return ask(self.socket, {"op": op, **request})

    def archive_ids(self) -> dict[str, str]:
        """Return name -> ID in hex of what is in the repository, partial archives included."""
        with self.vault.ledger.lock:
            return {info.name: info.id.hex() for info in self.vault.ledger.manifest.archives.list()}

    # Judges -----------------------------------------------------------------------------

    def recount(self) -> None:
        """Count every reference of every archive anew, in memory, with Borg's own reader, and
        compare it with what the vault has counted. Quick; leaves the vault running."""
        ledger = self.vault.ledger
        with ledger.lock:
            assert self.vault.broken is None, self.vault.broken
            counted = ChunkIndex()
            for info in ledger.manifest.archives.list():
                counted.add(info.id, 1, 0, 0)
                metadata = ledger.archive_metadata(info.id)
                reader = CacheSynchronizer(counted)
                for chunk_id in metadata[b"items"]:
                    counted.add(chunk_id, 1, 0, 0)
                    reader.feed(ledger.read(chunk_id))
            made = {key: entry[0] for key, entry in counted.iteritems()}
            kept = {key: entry[0] for key, entry in ledger.chunks.iteritems()}
            assert made == kept, "the counts are not those of the archives"
            stored = {key for key, _ in ledger.index.iteritems()} - {MANIFEST_ID}
            fresh = {key for key, _ in ledger.fresh.iteritems()}
            assert set(kept) <= stored, "a chunk is referenced and not stored"
            assert stored <= set(kept) | fresh, "a chunk is stored and belongs to nobody"

    def judge(self, *, read: int = 1000) -> None:
        """Stop the vault; its counts are those of Borg's cache made anew from nothing, and plain
        borg finds nothing wrong and can read every archive, or the ``read`` newest."""
        self.stop()
        assert self.vault.broken is None, self.vault.broken
        made = self._cache_made_anew()
        assert made == self.counts, "the vault's counts are not those that Borg makes"
        self.borg("check", "--verify-data", str(self.path))
        for name in self.borg("list", "--short", str(self.path)).split()[-read:]:
            self.borg("extract", "--dry-run", f"{self.path}::{name}")

    def _cache_made_anew(self) -> dict[bytes, tuple[int, int]]:
        from borg.crypto.key import Passphrase, identify_key
        from borg.helpers import Manifest

        with tempfile.TemporaryDirectory(prefix="bcv-") as base:
            before, os.environ["BORG_BASE_DIR"] = os.environ["BORG_BASE_DIR"], base
            try:
                with Repository(str(self.path), exclusive=True) as repository:
                    envelope = repository.get(Manifest.MANIFEST_ID)
                    key = identify_key(envelope)(repository)
                    assert key.load(repository, Passphrase(PASSPHRASE))
                    key.init_ciphers(envelope)
                    manifest, _ = Manifest.load(repository, Manifest.NO_OPERATION_CHECK, key=key)
                    with Cache(repository, key, manifest, warn_if_unencrypted=False) as cache:
                        return {k: entry[:2] for k, entry in cache.chunks.iteritems()}
            finally:
                os.environ["BORG_BASE_DIR"] = before

    def borg(self, *words: str) -> str:
        """Run plain borg; it must find nothing to say."""
        done = subprocess.run(
            [stock_borg(), *words],
            env={**self._environment, "BORG_PASSPHRASE": PASSPHRASE,
                 "BORG_BASE_DIR": str(self.root / "plain"),
                 "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and not done.stderr.strip(), done.stderr
        return done.stdout
