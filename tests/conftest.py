"""Order: the files that take longest come first, so that several workers end together."""

from __future__ import annotations

import pytest

LONGEST_FIRST = (
    "test_soak.py", "test_faults.py", "test_deploy.py", "test_after_borgcube.py", "test_many.py",
    "test_hostile.py", "test_first_backup.py", "test_every_page.py", "test_refused_client.py",
    "test_prune.py", "test_partials.py", "test_kills.py", "test_matrix.py", "test_resumption.py",
    "test_api.py", "test_nonces.py", "test_settings.py", "test_limits.py",
)  # fmt: skip
RANK = {name: number for number, name in enumerate(LONGEST_FIRST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of long files first; otherwise the order stays."""
    items.sort(key=lambda item: RANK.get(item.path.name, len(RANK)))
