"""Which client and plan an archive belongs to, written into the repository with its commit.

A key of the archive's own metadata, beside Borg's, authenticated with it. Borg carries keys that
it does not know along (``PropDict``), also when it renames an archive; ``borg recreate`` drops
them. The key sorts behind Borg's: ``borg check`` knows an archive by its first key. What it says
is for recovery; it gives nobody rights, since whoever has a repository's key can write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "x_borgcube"
_FIELDS = ("client", "plan", "job", "began")
_MAX_TEXT = 1000


def owner_metadata(*, client: str, plan: str, job: str, began: str) -> dict[str, Any]:
    """Return what is merged into an archive's metadata; ``began`` is our time, ISO 8601."""
    return {KEY: {"began": began, "client": client, "job": job, "plan": plan, "v": 1}}


def owner_of(metadata: Mapping[bytes, Any]) -> dict[str, str]:
    """Return what unpacked metadata says of its owner, as texts; empty when it says nothing."""
    found = metadata.get(KEY.encode())
    if type(found) is not dict:
        return {}
    values = {name: found.get(name.encode()) for name in _FIELDS}
    return {
        name: value.decode("utf-8", "replace")
        for name, value in values.items() if type(value) is bytes and len(value) <= _MAX_TEXT
    }  # fmt: skip
