"""Send forged archives to a real vault: refused, or admitted and the judge is content.

``python -m borgcube.testing.grammar.tried --count N --seed S`` tries N of them and prints what
was found, with the seed and the mutations of each. Repositories are made anew after a finding,
and after so many archives that judging them takes long.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from borgcube.testing.attacks import OWN, SECRET
from borgcube.testing.grammar.forge import CONTENTS, Forged, Known, forge, some_names
from borgcube.testing.hostile import MANIFEST_ID, Peer, Refused, at
from borgcube.testing.judge import Judge
from borgcube.testing.rig import PASSPHRASE, Rig

# Who may refuse, and how it is then called.
REFUSALS = {"archive-refused", "client-clock", "protocol", "wrong-id", "bad-envelope", "too-large"}
MOST_ARCHIVES = 60
# One path twice in an archive is honest (roots that overlap, files that change meanwhile): borg
# then extracts the one over the other as well as it can, and nothing through a link. The root
# itself has one kind only. Other systems have device numbers that our mknod refuses (errno 22).
TOLERATED = re.compile(
    r"^(?!\.: ).*(File exists|Is a directory|Not a directory|Directory not empty)|: \[Errno 22\]"
    r"|not extracted, a parent directory is a symlink"
)


@dataclass(frozen=True)
class Tried:
    """What became of an archive. ``findings`` are the judge's, or the ground's."""

    admitted: bool
    words: str
    findings: tuple[str, ...] = ()


class Ground:
    """A repository with an honest client's archive, its vault, and a judge."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.rig = Rig(place / "rig")
        self.number = 0
        self.rig.__enter__()
        try:
            for name, content in (("good", SECRET), ("bad", OWN)):
                tree = place / name
                tree.mkdir()
                (tree / "file").write_bytes(content)
                archive = "good-1" if name == "good" else "bad-0"
                assert (
                    self.rig.backup(archive, tree, plan=name, domain=f"client:{name}").state
                    == "done"
                )
            self.judge = Judge(
                self.rig.path, PASSPHRASE, cache=self.rig.cache, work=place / "judge"
            )
            self.before = self.judge.snapshot()
            self.judge.judge(unchanged=self.before).require()
        except BaseException:
            self.rig.__exit__()
            raise

    def close(self) -> None:
        """End the vault and the judge, and remove the place."""
        self.judge.close()
        self.rig.__exit__()
        shutil.rmtree(self.place, ignore_errors=True)

    def known(self, peer: Peer) -> Known:
        """Upload the client's content; return what it knows."""
        own = tuple((peer.put(plain), len(plain), len(plain) + 3) for plain in CONTENTS)
        return Known(
            own=own,
            offered=(peer.id_hash(OWN), len(OWN), len(OWN)),
            foreign=(peer.id_hash(SECRET), len(SECRET), len(SECRET)),
            witness=str(self.judge.witness),
        )

    def tries(self, rng: random.Random, names: list[str]) -> Tried:
        """Send one archive and ask the judge."""
        self.number += 1
        state = self.judge.state()
        peer = Peer(self.rig.socket, archive=f"bad-{self.number}")
        try:
            peer.greet()
            forged = forge(rng, self.known(peer), names)
            try:
                send(peer, forged)
                admitted = peer.session.end() is not None
                words = ""
            except Refused:
                admitted = False
                kind, words = peer.refusal()
                if kind == "archive-refused" or not kind:
                    kind, words = peer.finish()
                else:
                    peer.finish()
                words = f"{kind}: {words}"
        finally:
            peer.close()
        return Tried(admitted, words, tuple(self._findings(admitted, words, state)))

    def _findings(self, admitted: bool, words: str, state: str) -> list[str]:
        if self.rig.vault is None or self.rig.vault.poll() is not None:
            return ["the vault is gone"]
        if not admitted:
            found = []
            kind = words.partition(":")[0]
            if kind not in REFUSALS:
                found.append(f"it is refused in no words of ours: {words!r}")
            if kind != "client-clock" and self.judge.state() != state:
                found.append("a refused archive left a trace")
            if kind != "client-clock":
                return found
        return self.judge.judge(unchanged=self.before, tolerated=TOLERATED).findings


def send(peer: Peer, forged: Forged) -> None:
    """Write and commit a forged archive; raises Refused."""
    # An empty chunk is one that no gate takes, and would hide what else is wrong.
    ids = [peer.put(piece) for piece in forged.pieces() if piece]
    archive_id = peer.put(forged.metadata(ids, peer.metadata([])))
    entry = {"id": archive_id, "time": at(datetime.now(UTC))}
    honest = {
        "version": 1, "timestamp": at(datetime.now(UTC)), "config": {}, "item_keys": [],
        "archives": {peer.archive_name: entry},
    }  # fmt: skip
    peer.put(forged.manifest(honest), MANIFEST_ID)
    peer.commit()


class Grounds:
    """A ground that is made anew when it is spoiled or full; a context manager."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ground: Ground | None = None
        self._number = self._archives = 0

    def __enter__(self) -> Grounds:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._renew()

    def _renew(self) -> None:
        ground, self._ground, self._archives = self._ground, None, 0
        if ground is not None:
            ground.close()

    def tries(self, rng: random.Random, names: list[str]) -> Tried:
        """Send one archive to a ground in order."""
        if self._ground is None:
            self._number += 1
            place = self.place / f"ground-{self._number}"
            place.mkdir()
            self._ground = Ground(place)
        done = self._ground.tries(rng, names)
        self._archives += done.admitted
        if done.findings or self._archives >= MOST_ARCHIVES:
            self._renew()
        return done


def main(arguments: list[str] | None = None) -> int:
    """Try many; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.grammar.tried")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutation", help="only this one")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bcg", ignore_cleanup_errors=True) as place,
        Grounds(Path(place)) as grounds,
    ):
        for number in range(options.seed, options.seed + options.count):
            rng = random.Random(number)
            names = [options.mutation] if options.mutation else some_names(rng)
            done = grounds.tries(rng, names)
            counts["admitted" if done.admitted else done.words.partition(":")[0]] += 1
            if done.findings:
                counts["findings"] += 1
                said = [found[:1000] for found in done.findings]
                print(json.dumps({"seed": number, "mutations": names, "found": said}), flush=True)
    print(json.dumps({"tried": options.count, **counts}, indent=2))
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if counts["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
