"""Archives that no borg would make, put into a repository with plain borg's own library.

Run as a program (``python -m tests.functional.borg.crafted``), because borg's library keeps its
state in the process. Standard input is JSON: ``repository``, ``archive`` and ``items``; an item is
a map with ``path``, ``mode`` and whatever else, ``content`` being what becomes chunks. The
passphrase and the base directory are in the environment, as plain borg wants them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from borgcube.testing.rig import PASSPHRASE

ROOT = Path(__file__).parents[3]


def add(repository: Path, archive: str, items: list[dict[str, Any]], *, base: Path) -> None:
    """Put an archive of these items into a repository that nobody has open."""
    environment = {
        **os.environ, "BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(base),
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    }  # fmt: skip
    order = {"repository": str(repository), "archive": archive, "items": items}
    subprocess.run(
        [sys.executable, "-m", "tests.functional.borg.crafted"], input=json.dumps(order), text=True,
        env=environment, check=True, timeout=120, cwd=ROOT,
    )  # fmt: skip


def main() -> None:
    """Do what standard input says."""
    import msgpack
    from borg import logger
    from borg.archive import Archive, Statistics
    from borg.cache import Cache
    from borg.helpers import Manifest
    from borg.repository import Repository

    logger.setup_logging(level="warning")
    order = json.load(sys.stdin)
    with Repository(order["repository"], exclusive=True) as repository:
        manifest, key = Manifest.load(repository, Manifest.NO_OPERATION_CHECK)
        with Cache(repository, key, manifest, warn_if_unencrypted=False, lock_wait=5) as cache:
            archive = Archive(repository, key, manifest, order["archive"], cache, create=True)
            stats, stream = Statistics(), b""
            for item in order["items"]:
                content = item.pop("content", None)
                if content is not None:
                    data = content.encode()
                    chunk = key.id_hash(data)
                    entry = cache.add_chunk(chunk, data, stats)
                    item["chunks"] = [(chunk, entry.size, entry.csize)]
                if "xattrs" in item:
                    item["xattrs"] = {k.encode(): v.encode() for k, v in item["xattrs"].items()}
                stream += msgpack.packb(item, use_bin_type=False)
            archive.items_buffer.buffer.write(stream)
            archive.items_buffer.flush(flush=True)
            archive.save(order["archive"])


if __name__ == "__main__":
    main()
