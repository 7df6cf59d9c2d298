"""Sizes on the command line, for argparse; see ``core.sizes`` for how they are written."""

from __future__ import annotations

import argparse

from borgcube.core import sizes


def parse_size(text: str) -> int:
    """Return a number of bytes; raises ArgumentTypeError for what is no size."""
    try:
        return sizes.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
