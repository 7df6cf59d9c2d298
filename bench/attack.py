"""What attacks cost the server: ``python -m bench.attack [--worst N] [--json FILE]``.

Runs every attack of ``borgcube.testing.attacks`` against a real gate and a real vault, one
after another, and prints the peak memory of both and the time each took. Peaks are the
kernel's (``VmHWM``); the vault's is reset before each attack.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from borgcube.testing.attacks import OWN, SECRET, Attack, all_attacks
from borgcube.testing.hostile import Peer, Refused, peak_bytes
from borgcube.testing.rig import Rig


def measure(attack: Attack, rig: Rig) -> dict[str, Any]:
    """Run one attack; return who refused it, how long it took, and both peaks in bytes."""
    assert rig.vault is not None
    Path(f"/proc/{rig.vault.pid}/clear_refs").write_text("5")
    started = time.monotonic()
    peer = Peer(rig.socket, **attack.request(rig.root))
    try:
        if attack.greet:
            peer.greet()
        with suppress(Refused):
            attack.run(peer)
        kind, words = peer.refusal()
        if attack.by == "vault":
            kind, words = peer.finish()
        else:
            peer.finish()
    finally:
        peer.close()
    return {
        "name": attack.name,
        "refused": kind == attack.kind,
        "words": words,
        "seconds": round(time.monotonic() - started, 3),
        "gate_bytes": peer.gate_peak,
        "vault_bytes": peak_bytes(rig.vault.pid),
    }


def run() -> list[dict[str, Any]]:
    """Run all attacks on a fresh repository; return what each cost."""
    with tempfile.TemporaryDirectory(prefix="borgcube-attack-") as name, Rig(Path(name)) as rig:
        for client, content in (("good", SECRET), ("bad", OWN)):
            tree = rig.root / client
            tree.mkdir()
            (tree / "file").write_bytes(content)
            (tree / "other").write_text("a file that may be restored")
            archive = "good-1" if client == "good" else "bad-0"
            rig.backup(archive, tree, plan=client, domain=f"client:{client}")
        return [measure(attack, rig) for attack in all_attacks()]


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 when an attack was not refused as it should be."""
    parser = argparse.ArgumentParser(prog="python -m bench.attack", description=__doc__)
    parser.add_argument("--worst", type=int, default=8, help="rows of each half of the table")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args(argv)
    results = run()
    table = Table(title=f"{len(results)} attacks; the worst for the gate, then for the vault")
    for head in ("attack", "gate MB", "vault MB", "s"):
        table.add_column(head, justify="left" if head == "attack" else "right")
    for key in ("gate_bytes", "vault_bytes"):
        for row in sorted(results, key=lambda one: -one[key])[: options.worst]:
            table.add_row(
                row["name"],
                f"{row['gate_bytes'] / 1e6:.0f}",
                f"{row['vault_bytes'] / 1e6:.0f}",
                f"{row['seconds']:.2f}",
            )
        table.add_section()
    Console(width=110).print(table)
    for key, what in (("gate_bytes", "gate"), ("vault_bytes", "vault")):
        sizes = sorted(row[key] for row in results)
        print(
            f"{what}: median {sizes[len(sizes) // 2] / 1e6:.0f} MB, most {sizes[-1] / 1e6:.0f} MB"
        )
    wrong = [row["name"] for row in results if not row["refused"]]
    print(f"refused: {len(results) - len(wrong)} of {len(results)}")
    for name in wrong:
        print(f"not refused as it should be: {name}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
