"""Sizes on the command line."""

from __future__ import annotations

import argparse

import pytest

from borgcube.cli.output import readable, size, span
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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (90, "90 seconds"), (900, "15 minutes"), (3600, "1 hour"),
     (1_209_600, "14 days"), (90_000, "25 hours")],
)  # fmt: skip
def test_a_span_is_said_in_its_largest_exact_unit(seconds: int, words: str) -> None:
    assert span(seconds) == words


def test_fields_have_units_and_a_limit_of_nothing_is_none() -> None:
    assert readable({
        "max_job_bytes": 0, "max_files": 0, "max_total_bytes": 5 << 30, "max_duration_s": 86400,
        "upload_ratelimit_kib": 2048, "idle_timeout_s": 0, "retries": 0, "free_floor_bytes": 0,
        "numeric_ids": False, "paths": ["/a"], "port": 22,
    }) == {
        "max job": "no limit", "max files": "no limit", "max total": "5.0 GiB",
        "max duration": "1 day", "upload ratelimit": "2.0 MiB", "idle timeout": "none",
        "retries": 0, "free floor": "0 B", "numeric ids": False, "paths": ["/a"], "port": 22,
    }  # fmt: skip
