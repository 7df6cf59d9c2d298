"""Sizes as people type them: ``10G``, ``500M``, ``1.5TiB``; units are powers of 1024."""

from __future__ import annotations

import argparse
import re

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}


def parse_size(text: str) -> int:
    """Return a number of bytes, for argparse: raises ArgumentTypeError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500M or 10G")
    number, unit = found.groups()
    return (
        int(float(number) * _POWERS[unit.upper()])
        if "." in number
        else (int(number) * _POWERS[unit.upper()])
    )
