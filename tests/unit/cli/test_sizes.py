"""Sizes on the command line."""

from __future__ import annotations

import argparse

import pytest

from borgcube.cli.output import size
from borgcube.cli.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("1", 1), ("500M", 500 << 20), ("10G", 10 << 30), ("10g", 10 << 30),
        ("1.5TiB", 3 << 39), ("64 KB", 64 << 10), (" 7B ", 7), ("2P", 2 << 50),
    ],
)  # fmt: skip
def test_a_size_is_read_in_powers_of_1024(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1", "1,5G", "1e3", "10GG", "ten", "1G 2M", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("count", [1, 1 << 20, 5 << 30, 3 << 39])
def test_a_size_that_is_shown_can_be_typed(count: int) -> None:
    assert parse_size(size(count)) == count
