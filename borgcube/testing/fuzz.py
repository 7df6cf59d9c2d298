"""Fuzz one target under coverage guidance: ``python -m borgcube.testing.fuzz TARGET``.

Needs atheris (``pip install borgcube[fuzz]``). The corpus in ``tests/data/fuzz/TARGET`` is
where it starts and is not changed; ``--minimise`` adds to it what reaches code that nothing
in it reaches yet. A finding is written to ``crash-...`` in the working directory, and
the exit code is not 0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

NAMES = ("wire", "rpc", "session", "compressed", "items", "archive", "words")
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
    options = parser.parse_args()
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
        atheris.Setup([sys.argv[0], *arguments], TARGETS[options.target])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
