"""Which exclusions of a plan matched nothing on its client: mostly a slip of the pen.

Borg says with ``--list --filter x`` what it leaves out, not why. So the paths are matched here
once more, by borg's own patterns, in a process of its own with little time: the patterns are
the administrator's, the paths are the client's, and the two together can keep a regular
expression busy for hours. Used by ``pull.py`` and ``dryrun.py`` in the worker. What is found
is a remark; it decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from borgcube.core.untrusted import words

MAX_BYTES = 8 << 20  # of paths, with what each takes beside its text
PATH_BYTES = 100
CPU_SECONDS, WALL_SECONDS = 10, 20
MEMORY = 1 << 30
WHAT_DECIDES = ("paths", "patterns", "excludes")


def digest(options: Mapping[str, Any]) -> str:
    """Return a digest of what decides which paths a plan leaves out, in hexadecimal digits."""
    kept = {name: list(options.get(name) or ()) for name in WHAT_DECIDES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def wanted(options: Mapping[str, Any]) -> bool:
    """Tell whether borg should list what it leaves out: there are exclusions, and the last
    archive was not made with the same ones, all of which matched something."""
    if not are_in(options):
        return False
    last = options.get("exclusions") or {}
    return last.get("digest") != digest(options) or bool(last.get("unused"))


def are_in(options: Mapping[str, Any]) -> bool:
    """Tell whether a plan has exclusions that borg is given as patterns."""
    patterns = options.get("patterns") or ()
    return bool(options.get("excludes")) or any(one[:1] in ("-", "!") for one in patterns)


@dataclass
class Excluded:
    """The paths that borg says it left out, up to a bound."""

    paths: list[str] = field(default_factory=list)
    cut: bool = False
    size: int = 0

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one of borg's messages; all but lines of the list are left alone."""
        if message.get("type") != "file_status" or message.get("status") != "x":
            return
        path = message.get("path")
        if isinstance(path, str) and path:
            self.add(path)

    def add(self, path: str) -> None:
        """Keep one path."""
        cost = sys.getsizeof(path) + PATH_BYTES
        if self.size + cost > MAX_BYTES:
            self.cut = True
        else:
            self.size += cost
            self.paths.append(path)


def judge(options: Mapping[str, Any], excluded: Excluded) -> dict[str, Any]:
    """Return ``digest`` and ``unused``, the exclusions that matched none of the paths; without
    ``unused`` where that is not known: too many paths, or patterns too slow for them."""
    request = {
        "patterns": list(options.get("patterns") or ()),
        "excludes": list(options.get("excludes") or ()), "paths": excluded.paths,
    }  # fmt: skip
    found: list[str] | None = None
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__], input=json.dumps(request).encode(),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=WALL_SECONDS, check=True,
        )  # fmt: skip
        found = [words(text) for text in json.loads(done.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError):
        pass
    if found is None or (found and excluded.cut):
        return {"digest": "", "unused": []}
    return {"digest": digest(options), "unused": found}


def remark(found: Mapping[str, Any]) -> str:
    """Return one sentence about what :func:`judge` found; empty when there is nothing to say."""
    unused = found.get("unused") or []
    if not unused:
        return ""
    named = ", ".join(unused[:5]) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
    some = "an exclusion" if len(unused) == 1 else f"{len(unused)} exclusions"
    return f"{some} matched nothing: {named}"


def unused(patterns: Sequence[str], excludes: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return the exclusions, as written, that match none of ``paths``, as borg 1.4 reads
    them (``borg help patterns``)."""
    from borg.patterns import (
        FnmatchPattern,
        IECommand,
        ShellPattern,
        normalize_path,
        parse_inclexcl_command,
        parse_pattern,
    )

    left: list[tuple[str, Any]] = []
    for text in patterns:
        # A style ("P re") holds within one file of patterns; among options it changes nothing.
        value, command = parse_inclexcl_command(text, fallback=ShellPattern)
        if command in (IECommand.Exclude, IECommand.ExcludeNoRecurse):
            left.append((text, value))
    left += [(text, parse_pattern(text, FnmatchPattern)) for text in excludes]
    for given in paths:
        if not left:
            break
        path = normalize_path(given).lstrip("/")
        left = [(text, value) for text, value in left if not value.match(path, normalize=False)]
    return [text for text, _ in left]


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.exclusions``: one JSON object from
    standard input, one list to standard output. Ended by the kernel after 10 s of CPU."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    request = json.load(sys.stdin.buffer)
    print(json.dumps(unused(request["patterns"], request["excludes"], request["paths"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
