"""Sizes as people type them: ``10G``, ``500M``, ``1.5TiB``; units are powers of 1024. Pure."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}


def parse_size(text: str) -> int:
    """Return a number of bytes; raises ValueError for what is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 500M or 10G")
    number, unit = found.groups()
    return (
        int(float(number) * _POWERS[unit.upper()])
        if "." in number
        else (int(number) * _POWERS[unit.upper()])
    )


def exact_size(count: int) -> str:
    """Return a number of bytes as it can be typed, without losing one: ``10G``, ``1025``."""
    for unit in ("P", "T", "G", "M", "K"):
        if count and count % _POWERS[unit] == 0:
            return f"{count // _POWERS[unit]}{unit}"
    return str(count)
