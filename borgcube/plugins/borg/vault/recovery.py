"""What a vault sets right when it opens a repository, before anybody uses it.

It may follow a vault that was killed, a machine that lost power, or somebody who worked with
plain borg. What is in the repository is the truth; what BorgCube derives from it is brought
into line: locks of dead processes, the domains, unfinished backups, catalogs.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import zstandard

from borgcube.core.budget import Disk
from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.catalog import sweep
from borgcube.plugins.borg.vault.causes import home_writes
from borgcube.plugins.borg.vault.domains import Domain
from borgcube.plugins.borg.vault.items import as_ns, item_kind
from borgcube.plugins.borg.vault.ledger import PARTIAL_COMMENT, PARTIAL_SUFFIX, Ledger
from borgcube.plugins.borg.vault.opened import figures_of

if TYPE_CHECKING:
    from borgcube.plugins.borg.vault.main import Vault

log = logging.getLogger("borgcube.vault")
MAX_CATALOG = 64 << 30  # bytes before compression: as much as an archive's metadata may have
_ARCHIVE_FILE = re.compile(r"[0-9a-f]{64}\.zst\Z")


# Locks ----------------------------------------------------------------------------------


def _holder_file(path: Path, state_dir: Path) -> Path:
    return state_dir / "holders" / (path.absolute().as_posix().replace("/", "%") + ".json")


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's words (field 22 of proc(5) stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def note_holder(state_dir: Path, opened: Any) -> None:
    """Write down whose locks these are, so that :func:`break_dead_lock` can tell later."""
    note = _holder_file(Path(opened.repository.path), state_dir)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, pid, thread = opened.repository.lock.id
    facts = {
        "lock": f"{host}.{pid}-{thread:x}",
        "pid": pid,
        "boot": _boot(),
        "started": _started(pid),
        "directories": [f"{opened.repository.lock.path}.exclusive"],
    }
    if opened.cache is not None:
        facts["directories"].append(f"{opened.cache.cache_config.lock.path}.exclusive")
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps(facts))
    os.replace(temporary, note)


def break_dead_lock(path: Path, state_dir: Path) -> None:
    """Remove the locks of our own last vault on a repository if that process is dead.

    Borg does that itself unless another process got the same number since, as after a
    reboot. The note says when the holder started, which tells the two apart.
    """
    note = _holder_file(path, state_dir)
    try:
        facts = json.loads(note.read_text())
        pid, name = int(facts["pid"]), str(facts["lock"])
        directories = [Path(text) for text in facts["directories"]]
        alive = facts["boot"] == _boot() and facts["started"] == _started(pid) != ""
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        note.unlink(missing_ok=True)
        return
    if alive:
        return
    for directory in directories:
        try:
            (directory / name).unlink()
            directory.rmdir()
            log.warning("removed the lock of the dead process %d: %s", pid, directory)
        except OSError:
            continue  # it is not there, or it is not ours


# Archives -------------------------------------------------------------------------------


def _is_partial(ledger: Ledger, archive_id: bytes, name: str) -> bool:
    """Tell whether an archive is one that a vault wrote for an unfinished backup."""
    if not name.endswith(PARTIAL_SUFFIX):
        return False
    metadata = ledger.archive_metadata(archive_id)
    return bool(metadata.get(b"comment") == PARTIAL_COMMENT.encode())


def list_archives(vault: Vault, *, known: frozenset[str]) -> list[dict[str, Any]]:
    """Return the archives of the repository; see ``core.engines.Engine.list_archives``."""
    ledger = vault.ledger
    owners: dict[str, dict[str, Any]] = {}
    with ledger.lock:
        infos = [(info.id, info.name, info.ts) for info in ledger.manifest.archives.list()]
        for domain in Domain.every(vault.state_dir / "domains"):
            owners.update(domain.archives())
    found: list[dict[str, Any]] = []
    for archive_id, name, moment in infos:
        entry: dict[str, Any] = {"id": archive_id.hex(), "name": name}
        if entry["id"] not in known:
            facts = owners.get(entry["id"], {})
            entry |= {key: facts[key] for key in ("client", "plan", "job") if key in facts}
            entry["start"] = moment.isoformat()
            try:
                if _is_partial(ledger, archive_id, name):
                    continue
                entry |= _figures(ledger, archive_id)
            except Exception as error:
                # One damaged archive must not keep all others from being used.
                log.warning("the archive %s cannot be read: %s", name, error)
        found.append(entry)
    return found


def write_catalog(vault: Vault, archive_id: str) -> int:
    """Write the catalog of an archive that was not admitted here; return its entries.

    Same form as ``admission.walk`` writes. Raises JobFailed when there is no such archive or
    it is damaged.
    """
    ledger = vault.ledger
    with ledger.lock:
        present = {info.id.hex() for info in ledger.manifest.archives.list()}
    if archive_id not in present:
        raise JobFailed("archive-missing", Problem.REPOSITORY,
                        "The archive is not in the repository any more.")  # fmt: skip
    pack = msgpack.Packer(autoreset=True, use_bin_type=True).pack
    directory = vault.state_dir / "catalog"
    count = 0
    with home_writes(reads_repository=True):
        directory.mkdir(mode=0o700, exist_ok=True)
        new = directory / f"{archive_id}.{secrets.token_hex(4)}.new"
        disk = Disk(directory, what="The list of files of the archive", most=MAX_CATALOG,
                    kind="no-room-for-index")  # fmt: skip
        try:
            with zstandard.open(new, "wb") as out:
                for item in ledger.items(bytes.fromhex(archive_id)):
                    size = sum(entry[1] for entry in item.get(b"chunks") or ())
                    kind, mtime = item_kind(item.get(b"mode", 0)), as_ns(item[b"mtime"])
                    entry = pack((item[b"path"], kind, size, mtime))
                    disk.spend(len(entry))
                    out.write(entry)
                    count += 1
            new.replace(directory / f"{archive_id}.zst")
        finally:
            new.unlink(missing_ok=True)
    return count


def _figures(ledger: Ledger, archive_id: bytes) -> dict[str, Any]:
    return figures_of(ledger.archive_metadata(archive_id))


def take_stock(vault: Vault) -> None:
    """Bring domains, unfinished backups and catalogs into line with the repository.

    Runs under the ledger's lock, before there are sessions.
    """
    ledger = vault.ledger
    present = {info.id.hex(): info.name for info in ledger.manifest.archives.list()}
    domains = Domain.every(vault.state_dir / "domains")
    for domain in domains:
        vault.derive(partial(domain.reconcile, present))
    vault.derive(lambda: _remove_leftovers(vault.state_dir, present))
    give_up_partials(vault)


def note_upkeep(vault: Vault, due: datetime | None) -> None:
    """Write down when the next unfinished backup is to be given up; None is never."""
    note = vault.state_dir / "upkeep.json"
    if due is None:
        note.unlink(missing_ok=True)
        return
    temporary = note.with_suffix(".new")
    temporary.write_text(json.dumps({"due": due.isoformat(timespec="seconds")}))
    os.replace(temporary, note)


def note_session(vault: Vault) -> None:
    """Note, before a session writes anything, that what it may leave has an end."""
    if not (vault.state_dir / "upkeep.json").exists():
        note_upkeep(vault, datetime.now(UTC) + vault.partial_age)


def give_up_partials(vault: Vault) -> None:
    """Delete the unfinished backups whose time is over, and note when the next one's is.

    Runs under the ledger's lock; does nothing while there are sessions, which may rely on
    what those hold.
    """
    if len(vault.sessions) or vault.broken is not None or vault.read_only:
        return
    ledger, age = vault.ledger, vault.partial_age
    now = datetime.now(UTC)
    old, due = [], None
    for info in ledger.manifest.archives.list():
        if not info.name.endswith(PARTIAL_SUFFIX):
            continue
        moment = info.ts if info.ts.tzinfo else info.ts.replace(tzinfo=UTC)
        if now - moment <= age:
            due = min(due or now + age, moment + age)
        else:
            try:
                if _is_partial(ledger, info.id, info.name):
                    ledger.check_readable(info.name)
                    old.append(info.name)
            except Exception as error:
                log.warning("%s cannot be read and stays: %s", info.name, error)
    if old:
        vault.commit(finishing=None, remove=old)
        log.info("gave up unfinished backups older than %s: %s", age, ", ".join(old))
    vault.derive(partial(note_upkeep, vault, due))


def _remove_leftovers(state_dir: Path, present: dict[str, str]) -> None:
    for path in (state_dir / "catalog").glob("*.zst"):
        if not _ARCHIVE_FILE.match(path.name) or path.stem not in present:
            path.unlink(missing_ok=True)
    for path in (state_dir / "browse").glob("*.db"):
        if path.stem not in present:
            path.unlink(missing_ok=True)
    for pattern in ("plans/*.new", "domains/*/*.new", "catalog/*.new"):
        for path in state_dir.glob(pattern):
            path.unlink(missing_ok=True)
    sweep(state_dir / "browse")  # an index may be in the making
