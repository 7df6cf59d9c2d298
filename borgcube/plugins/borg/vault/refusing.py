"""From what goes wrong while a client's archive is read to a refusal of that client."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from borgcube.plugins.borg.gate.verify import Rejected
from borgcube.plugins.borg.metadata.rules import ArchiveRefused
from borgcube.plugins.borg.vault.memory import scarce

log = logging.getLogger("borgcube.vault")


@contextmanager
def refusing() -> Iterator[None]:
    """Turn whatever goes wrong with a client's data, while nothing is changed, into a refusal.

    Only the client's session ends then, not the vault with everybody's. A lack of memory ends
    it too, but is no fault of the client's.
    """
    try:
        with scarce():
            yield
    except (
        Rejected, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        log.exception("an archive cannot be audited")
        raise ArchiveRefused(f"the archive cannot be read ({type(error).__name__})") from error
