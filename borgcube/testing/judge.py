"""An independent judge of a repository: it asks stock borg, and nothing of BorgCube.

Whatever a client tried, and whenever a soak pauses, this must hold: the counts in the vault's
cache are those of a cache that borg makes anew from nothing; ``borg check --verify-data`` is
clean; every archive lists and extracts with stock borg, without a traceback and with nothing
changed outside its target; the archives of others are what they were, byte for byte.

The judge looks at a copy of what is committed (hard links of the segments, which borg never
changes), so that a vault may run meanwhile, as long as it does not commit. What it has found
sound it does not look at again: a state that did not change costs two digests.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from borgcube.testing.stockborg import Ran, StockBorg, index_of

_SETFLAGS = 0x40086602  # FS_IOC_SETFLAGS of linux/fs.h, on machines of 64 bits
SHOWN = 5  # differences of one kind that are told
# What an honest archive may make borg say where it is extracted on another system than its own:
# attributes, access lists and names that this file system does not have.
HARMLESS = re.compile(
    r"Operation not supported|when setting extended attribute|attrs: \[Errno (13|22)\]"
    r"|File name too long"
)
Snapshot = Mapping[str, str]


class NotContent(AssertionError):
    """The judge found something; the message lists it."""


@dataclass
class Verdict:
    """What one look found. ``csize`` are differences of stored sizes alone."""

    findings: list[str] = field(default_factory=list)
    csize: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    archives: int = 0  # that were listed and extracted
    seconds: float = 0.0

    @property
    def content(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def require(self) -> Verdict:
        """Raise NotContent if something was found."""
        if self.findings:
            raise NotContent("\n".join(self.findings))
        return self


class Judge:
    """Judges one repository; a context manager.

    ``cache`` is the directory of borg's cache that the vault keeps for it, or None to compare
    no counts. ``work`` is an empty directory of the judge's own, on the same file system if
    segments are not to be copied. ``witness`` is a tree outside of every target, and writable:
    attacks aim at it.
    """

    def __init__(
        self, repository: Path, passphrase: str, *, cache: Path | None, work: Path
    ) -> None:
        self.repository, self.cache, self.work = repository, cache, work
        self.witness = work / "witness"
        work.mkdir(parents=True, exist_ok=True)
        _make_witness(self.witness)
        self._witnessed = tree_digest(self.witness)
        self._borg = StockBorg(passphrase)
        self._copied = ""  # the state of which there is a copy
        self._judged = ""  # the state that was found sound
        self._same: Snapshot | None = None  # what was compared with it
        self._sound: set[str] = set()  # IDs of archives that list and extract
        self._number = 0

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server of stock borg."""
        self._borg.close()

    # Looking --------------------------------------------------------------------------

    def state(self) -> str:
        """Return a digest of what is committed: borg's index, and the vault's cache."""
        files = [*self.repository.glob("index.*"), *self.repository.glob("hints.*")]
        if self.cache is not None:
            files += [self.cache / "chunks", self.cache / "config"]
        digest = hashlib.sha256()
        for path in sorted(files):
            digest.update(path.name.encode() + b"\0")
            digest.update(path.read_bytes() if path.is_file() else b"missing")
        return digest.hexdigest()

    def snapshot(self, but: Collection[str] = ()) -> Snapshot:
        """Return what each archive is, byte for byte, but those of these names."""
        self._copy()
        found = self._borg.digests(self._at("repository"), base=self._base())
        return {name: digest for name, digest in found.items() if name not in but}

    def judge(
        self,
        *,
        unchanged: Snapshot | None = None,
        tolerated: re.Pattern[str] | None = None,
        csize: bool = False,
    ) -> Verdict:
        """Look at everything that may have changed since it was found sound.

        ``unchanged`` are the archives that must be as they were. A warning of borg's extract is
        a finding, but for lines in which ``tolerated`` is found. With ``csize`` a stored size that
        differs from what the archives say is one as well.
        """
        begun = time.monotonic()
        verdict = Verdict()
        state = self.state()
        if state == self._judged and (unchanged is None or unchanged is self._same):
            return verdict
        self._copy()
        if state != self._judged:
            self._counts(verdict)
            if csize:
                verdict.findings += verdict.csize
            self._check(verdict)
            self._archives(verdict, tolerated)
        if unchanged is not None:
            now = self.snapshot()
            for name, digest in unchanged.items():
                if name not in now:
                    verdict.findings.append(f"the archive {name} is gone")
                elif now[name] != digest:
                    verdict.findings.append(f"the archive {name} is not what it was")
        if verdict.content:
            self._judged, self._same = state, unchanged
        verdict.seconds = time.monotonic() - begun
        return verdict

    # The parts ------------------------------------------------------------------------

    def _counts(self, verdict: Verdict) -> None:
        """Borg's cache, made anew from nothing, has the counts of the vault's."""
        if self.cache is None:
            return
        base = self._fresh("anew")
        done = self._run("info", "--bypass-lock", str(self._at("repository")), base=base)
        made = list((base / ".cache" / "borg").glob("*/chunks"))
        if done.code != 0 or done.crashed or len(made) != 1:
            verdict.findings.append(f"borg cannot make its cache anew: {_words(done)}")
            return
        anew, ours = index_of(made[0]), index_of(self.cache / "chunks")
        wrong, sizes = [], []
        for key in sorted(anew.keys() | ours.keys()):
            one, other = ours.get(key), anew.get(key)
            if one is None or other is None or one[:2] != other[:2]:
                wrong.append(f"chunk {key.hex()[:16]}: the vault counts {one}, borg {other}")
            elif one[2] != other[2]:
                sizes.append(f"chunk {key.hex()[:16]}: csize {one[2]}, in the archives {other[2]}")
        verdict.findings += _some(wrong)
        verdict.csize += _some(sizes)

    def _check(self, verdict: Verdict) -> None:
        place = self._at("repository")
        done = self._run("check", "--verify-data", str(place), writable=place)
        if done.code != 0 or done.crashed or done.err.strip():
            verdict.findings.append(f"borg check is not clean: {_words(done)}")

    def _archives(self, verdict: Verdict, tolerated: re.Pattern[str] | None) -> None:
        """Every archive that is new lists and extracts, and changes nothing elsewhere."""
        place = str(self._at("repository"))
        done = self._run("list", "--bypass-lock", "--format", "{id} {archive}{NUL}", place)
        if done.code != 0 or done.crashed:
            verdict.findings.append(f"borg cannot list the repository: {_words(done)}")
            return
        for entry in filter(None, done.out.split("\0")):
            archive_id, _, name = entry.strip("\n").partition(" ")
            if archive_id in self._sound:
                continue
            found = self._archive(f"{place}::{name}", name, verdict.warnings, tolerated)
            verdict.archives += 1
            verdict.findings += found
            if not found:
                self._sound.add(archive_id)

    def _archive(
        self, place: str, name: str, warnings: list[str], tolerated: re.Pattern[str] | None
    ) -> list[str]:
        found = []
        done = self._run("list", "--bypass-lock", place)
        if done.code != 0 or done.crashed:
            found.append(f"{name} does not list: {_words(done)}")
        target = self._fresh("target")
        done = self._run("extract", "--bypass-lock", place, cwd=target, writable=self.witness)
        said = [line for line in done.err.splitlines() if line.strip()]
        left = [
            line for line in said
            if not (HARMLESS.search(line) or (tolerated is not None and tolerated.search(line)))
        ]  # fmt: skip
        warnings += [f"{name}: {line}" for line in said[:SHOWN]]
        if done.crashed or done.code > 1:
            found.append(f"{name} does not extract: {_words(done)}")
        elif any("Read-only file system" in line for line in said):
            found.append(f"{name} changes what is not in its target: {_words(done)}")
        elif left:
            found.append(f"{name} extracts with warnings: {_words(done)}")
        if tree_digest(self.witness) != self._witnessed:
            found.append(f"{name} changed the witness outside its target")
            shutil.rmtree(self.witness)
            _make_witness(self.witness)
            self._witnessed = tree_digest(self.witness)
        _remove(target)
        return found

    # Places ---------------------------------------------------------------------------

    def _at(self, name: str) -> Path:
        return self.work / name

    def _base(self) -> Path:
        base = self.work / "base"
        base.mkdir(exist_ok=True)
        return base

    def _fresh(self, name: str) -> Path:
        path = self.work / name
        _remove(path)
        path.mkdir()
        return path

    def _run(
        self, *argv: str, base: Path | None = None, cwd: Path | None = None,
        writable: Path | None = None,
    ) -> Ran:  # fmt: skip
        base = base or self._base()
        more = [] if writable is None else [writable]
        return self._borg.run(*argv, base=base, cwd=cwd or base, writable=more)

    def _copy(self) -> None:
        """Copy what is committed, and nothing of a transaction that is not."""
        state = self.state()
        if state == self._copied:
            return
        place = self._fresh("repository")
        last = max(int(path.suffix[1:]) for path in self.repository.glob("index.*"))
        for path in self.repository.iterdir():
            number = path.suffix[1:]
            if path.is_file() and (not number.isdigit() or int(number) == last):
                shutil.copy2(path, place / path.name)
        for path in (self.repository / "data").glob("*/*"):
            if path.name.isdigit() and int(path.name) <= last:
                target = place / "data" / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
        _remove(self.work / "base")  # its cache is of another state, perhaps of a later one
        self._copied = state


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)


def _some(found: list[str]) -> list[str]:
    more = [f"and {len(found) - SHOWN} more such chunks"] if len(found) > SHOWN else []
    return found[:SHOWN] + more


def _words(done: Ran) -> str:
    return f"exit code {done.code}: {done.err.strip()[-1500:]}"


def _make_witness(place: Path) -> None:
    (place / "directory").mkdir(parents=True)
    (place / "file").write_text("nobody touches this\n")
    (place / "directory" / "file").write_text("nor this\n")
    for path in (place / "directory" / "file", place / "directory", place / "file", place):
        os.chmod(path, 0o755 if path.is_dir() else 0o640)
        os.utime(path, ns=(10**18, 10**18))


def tree_digest(place: Path) -> str:
    """Return a digest of a tree: names, types, modes, owners, times, attributes, content."""
    digest = hashlib.sha256()
    root = os.fsencode(place)
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in [b"", *sorted(folders), *sorted(files)]:
            path = os.path.join(folder, name) if name else folder
            facts = os.lstat(path)
            digest.update(os.path.relpath(path, root) + b"\0")
            numbers = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_nlink)
            digest.update(repr((*numbers, facts.st_mtime_ns)).encode())
            attributes = sorted(os.listxattr(path, follow_symlinks=False))
            for key in attributes:
                digest.update(key.encode() + os.getxattr(path, key, follow_symlinks=False))
            if stat.S_ISREG(facts.st_mode):
                digest.update(Path(os.fsdecode(path)).read_bytes())
            elif stat.S_ISLNK(facts.st_mode):
                digest.update(os.readlink(path))
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Remove a tree, whatever modes, flags and depths it has."""
    if not path.is_dir():
        return
    for folder, _, files in os.walk(os.fsencode(path)):
        for name in (b"", *files):
            _clear_flags(os.path.join(folder, name) if name else folder)
        os.chmod(folder, 0o700)
    shutil.rmtree(path)


def _clear_flags(path: bytes) -> None:
    """Take flags such as "immutable" off, which borg restores as root."""
    if not stat.S_ISREG(os.lstat(path).st_mode) and not os.path.isdir(path):
        return
    with contextlib.suppress(OSError):  # a file system without flags, or a link
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.ioctl(opened, _SETFLAGS, struct.pack("i", 0))
        finally:
            os.close(opened)
