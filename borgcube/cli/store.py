"""Commands about the object store: its size and contents, and packing it."""

from __future__ import annotations

import argparse

from borgcube.cli import output
from borgcube.cli.control import Control

PACK_S = 6 * 3600.0


def show(control: Control, options: argparse.Namespace) -> int:
    """Show the store's size and what is in it."""
    data = control.call("store.show")
    if options.json:
        output.as_json(data)
        return 0
    counts = data.pop("counts")
    output.fields({
        "file": data["file"] or "not a file of this machine",
        "size": output.size(data["size"]) if data["size"] is not None else "",
        "packed": output.local_time(data["packed_at"]) if data["packed_at"] else "never",
        **{name: output.count(number) for name, number in counts.items()},
    })  # fmt: skip
    return 0


def pack(control: Control, options: argparse.Namespace) -> int:
    """Pack the store: drop what later changes have replaced."""
    data = control.call("store.pack", timeout_s=PACK_S)
    if options.json:
        output.as_json(data)
    else:
        output.say(f"Packed: {output.size(data['before'])} before, "
                   f"{output.size(data['after'])} now.")  # fmt: skip
    return 0
