"""Exclusions that match nothing are named, as Borg itself reads patterns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from borgcube.plugins.borg import exclusions
from borgcube.plugins.borg.pull import create_command

BORG = str(Path(sys.executable).parent / "borg")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in (
        "etc/passwd",
        "home/a/.cache/x/y",
        "home/a/work.o",
        "home/b/.cache/z",
        "var/log/1",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def left_out(root: Path, options: dict[str, Any]) -> exclusions.Excluded:
    """What real borg says it leaves out."""
    known = {"digest": exclusions.digest(options), "unused": []}
    argv = create_command(BORG, {**options, "archive": "a", "exclusions": known})
    argv[2:2] = ["--dry-run", "--list"]
    argv.remove("--progress")
    argv[argv.index("--") + 1] = f"{root}/repository::a"
    environment = {"BORG_BASE_DIR": str(root), "PATH": "/usr/bin:/bin"}
    if not (root / "repository").exists():
        subprocess.run([BORG, "init", "-e", "none", f"{root}/repository"], env=environment,
                       check=True, capture_output=True)  # fmt: skip
    done = subprocess.run(argv, env=environment, check=True, capture_output=True)
    found = exclusions.Excluded()
    for line in done.stderr.splitlines():
        found.take(json.loads(line))
    return found


@pytest.mark.parametrize(
    ("patterns", "excludes", "unused"),
    [
        ((), ("*/.cache", "*.o", "*.tmp"), ["*.tmp"]),
        ((), ("pp:{root}/etc", "sh:{root}/home/*/.cache", "{root}/var/lgo"), ["{root}/var/lgo"]),
        ((), ("re:wor[k]\\.o$", "re:^nothing", "pf:{root}/etc/passwd"), ["re:^nothing"]),
        (("+ {root}/home/a", "- {root}/home/*", "- {root}/srv"), (), ["- {root}/srv"]),
        (("P re", "- fm:*/b/*", "- re:^x", "! re:/var/log$", "- lo.$"), (), ["- re:^x", "- lo.$"]),
        (("! {root}/home/a", "- {root}/home/a/.cache"), (), ["- {root}/home/a/.cache"]),
        (("+ {root}/nowhere",), (), []),
    ],
)  # fmt: skip
def test_what_borg_did_not_leave_out_is_unused(
    tree: Path, patterns: tuple[str, ...], excludes: tuple[str, ...], unused: list[str]
) -> None:
    def filled(texts: Any) -> list[str]:
        return [text.replace("{root}", str(tree)) for text in texts]

    options = {"paths": filled(["{root}/etc", "{root}/home", "{root}/var"]),
               "patterns": filled(patterns), "excludes": filled(excludes)}  # fmt: skip
    found = exclusions.judge(options, left_out(tree, options))
    if exclusions.are_in(options):
        assert found == {"digest": exclusions.digest(options), "unused": filled(unused)}
    assert exclusions.wanted({**options, "exclusions": found}) is bool(unused)


def test_borg_lists_what_it_leaves_out_until_each_exclusion_is_known_to_match() -> None:
    options: dict[str, Any] = {"paths": ["/a"], "excludes": ["*.o"], "archive": "x"}
    assert "--list" in create_command("borg", options)
    known = {"digest": exclusions.digest(options), "unused": []}
    assert "--list" not in create_command("borg", {**options, "exclusions": known})
    assert "--list" in create_command("borg", {**options, "paths": ["/b"], "exclusions": known})
    unused = {**known, "unused": ["*.o"]}
    assert "--list" in create_command("borg", {**options, "exclusions": unused})
    assert "--list" not in create_command("borg", {"paths": ["/a"], "archive": "x"})


def test_a_path_that_keeps_a_pattern_busy_is_no_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusions, "WALL_SECONDS", 2)
    excluded = exclusions.Excluded(["a" * 60 + "!"])
    options = {"excludes": ["re:^(a+)+$"]}
    assert exclusions.judge(options, excluded) == {"digest": "", "unused": []}


def test_of_more_paths_than_are_kept_nothing_is_said() -> None:
    excluded = exclusions.Excluded()
    while not excluded.cut:
        number = len(excluded.paths)
        excluded.take({"type": "file_status", "status": "x", "path": f"/{number}.o"})
    assert exclusions.judge({"excludes": ["*.o", "*.tmp"]}, excluded)["digest"] == ""
    options = {"excludes": ["*.o"]}
    assert exclusions.judge(options, excluded)["digest"] == exclusions.digest(options)


def test_the_paths_that_are_kept_are_counted_in_bytes() -> None:
    """8 MiB of characters were up to 32 MiB of memory."""
    excluded = exclusions.Excluded()
    for number in range(8000):
        excluded.add(f"/{number}" + "\N{LINEAR B SYLLABLE B008 A}" * 1000)
    held = sum(sys.getsizeof(path) for path in excluded.paths)
    assert excluded.cut and held <= exclusions.MAX_BYTES, f"{held / 1e6:.0f} MB"


@pytest.mark.parametrize("message", [{}, {"type": "file_status"}, {"type": "file_status",
    "status": "x", "path": 3}, {"type": "file_status", "status": "A", "path": "/a"}])  # fmt: skip
def test_other_messages_are_left_alone(message: dict[str, Any]) -> None:
    excluded = exclusions.Excluded()
    excluded.take(message)
    assert excluded.paths == []


def test_the_remark_names_the_first_few() -> None:
    assert exclusions.remark({"unused": []}) == ""
    assert exclusions.remark({"unused": ["*.o"]}) == "an exclusion matched nothing: *.o"
    assert "6 exclusions" in exclusions.remark({"unused": list("abcdef")})
    assert exclusions.remark({"unused": list("abcdef")}).endswith("e and 1 more")
