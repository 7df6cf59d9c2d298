"""The version of a record: what a form or a request saw, so that nobody's edit is lost.

Pure. The console's forms and the API carry it; the daemon compares it in the transaction
of the change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def version_of(data: Mapping[str, Any]) -> str:
    """Return a short word that changes with any value of ``data``: of a record's
    ``as_data()``, or its ``settings_of()`` where something in it changes by itself."""
    packed = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(packed).hexdigest()[:16]
