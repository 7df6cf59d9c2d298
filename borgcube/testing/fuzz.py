"""Fuzz one target under coverage guidance: ``python -m borgcube.testing.fuzz TARGET``.

Needs atheris (``pip install borgcube[fuzz]``). The corpus in ``tests/data/fuzz/TARGET`` is
where it starts and is not changed; ``--minimise`` adds to it what reaches code that nothing
in it reaches yet. A finding is written to ``crash-...`` in the working directory, and
the exit code is not 0. What ``agree`` reads comes from a grammar as often as from bytes; with
``--generate N`` it needs no atheris, and reads N archives of the grammar.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("wire", "rpc", "session", "compressed", "items", "archive", "words", "agree")
CORPUS = Path(__file__).parents[2] / "tests" / "data" / "fuzz"
MEMORY_MIB = 1024


def main() -> int:
    """Run libFuzzer on the target; it ends the process itself."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.fuzz")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--work", type=Path, help="keeps what was found for later runs")
    parser.add_argument("--minimise", action="store_true", help="take --work into the corpus")
    parser.add_argument("--max-bytes", type=int, default=1 << 13, help="longest input")
    parser.add_argument("--generate", type=int, metavar="N", help="archives of the grammar")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them")
    options = parser.parse_args()
    if options.generate is not None:
        return _generate(options.generate, options.seed)
    try:
        import atheris
    except ImportError:
        print("Install atheris first: pip install 'borgcube[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["borgcube.plugins.borg"]):
        from borgcube.testing.fuzztargets import TARGETS

    corpus = options.corpus / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    limits = [f"-rss_limit_mb={MEMORY_MIB}", f"-max_len={options.max_bytes}", "-timeout=20"]
    with tempfile.TemporaryDirectory(prefix="borgcube-fuzz") as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if options.minimise:
            arguments = ["-merge=1", *limits, str(corpus), str(work)]
        else:
            seconds = f"-max_total_time={options.seconds}"
            arguments = [seconds, "-print_final_stats=1", *limits, str(work), str(corpus)]
        more = {"custom_mutator": _mutate} if options.target == "agree" else {}
        atheris.Setup([sys.argv[0], *arguments], TARGETS[options.target], **more)
        atheris.Fuzz()
    return 0


def _generate(count: int, seed: int) -> int:
    from borgcube.testing.agreement import generate

    begun = time.monotonic()
    found = generate(count, seed)
    print(json.dumps({**found, "seconds": round(time.monotonic() - begun)}, indent=2))
    return 1 if found.get("findings") else 0


def _mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Return an archive of the grammar, or what libFuzzer makes of the bytes."""
    import atheris

    from borgcube.testing.agreement import generated

    if seed % 4 == 0:
        made = b"".join(generated(seed)[1])
        if len(made) <= max_size:
            return made
    changed: bytes = atheris.Mutate(data, max_size)
    return changed


if __name__ == "__main__":
    sys.exit(main())
