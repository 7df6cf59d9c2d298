"""The rules of the architecture hold, and each check can fail."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "borgcube"
# The engine; and the witness against it, which is borg itself.
BORG = ("borgcube/plugins/borg/", "borgcube/testing/stockborg.py")
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 600
PICKLES = {"pickle", "cPickle", "_pickle", "zodbpickle", "dill", "marshal", "shelve"}
LINT = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def faults(source: str, *, where: str) -> list[str]:
    """Return what the rules for single modules have against this source."""
    tree = ast.parse(source)
    found = []
    if not ast.get_docstring(tree):
        found.append("no docstring")
    if len(source.splitlines()) > MAX_LINES:
        found.append("too long")
    for name in {name.split(".")[0] for name in imported(tree)}:
        if name == "borg" and not where.startswith(BORG):
            found.append("imports borg")
        if name in PICKLES and where != "borgcube/core/store.py":
            found.append("imports pickle")
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            constant = node.value.value if isinstance(node.value, ast.Constant) else None
            if constant is not False:
                found.append("shell=True")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_keeps_the_rules(module: Path) -> None:
    where = module.relative_to(ROOT).as_posix()
    assert faults(module.read_text(), where=where) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("x = 1", "no docstring"),
        ('"""d"""' + "\n" * 700 + "x = 1", "too long"),
        ('"""d"""\nfrom borg.key import x', "imports borg"),
        ('"""d"""\nimport borg.key', "imports borg"),
        ('"""d"""\ndef f():\n    import pickle', "imports pickle"),
        ('"""d"""\nrun("ls", shell=True)', "shell=True"),
        ('"""d"""\nrun("ls", shell=maybe)', "shell=True"),
    ],
)
def test_a_bad_module_is_noticed(source: str, fault: str) -> None:
    assert faults(source, where="borgcube/core/bad.py") == [fault]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"], cwd=directory, text=True,
        env={"PYTHONPATH": str(directory), "PATH": "/usr/bin:/bin"},
        capture_output=True, timeout=100, check=False,
    )  # fmt: skip


def test_import_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("", "", 0),
        ("core/bad.py", "import borgcube.daemon", 1),
        ("core/bad.py", "import zmq", 1),
        ("daemon/bad.py", "import borgcube.plugins.a", 1),
        ("plugins/a/bad.py", "import borgcube.daemon", 1),
        ("plugins/a/bad.py", "import borgcube.plugins.b", 1),
        ("plugins/a/bad.py", "import borgcube.web", 1),
        ("plugins/a/bad.py", "import borgcube.control", 1),
        ("web/bad.py", "import borgcube.daemon", 1),
        ("web/bad.py", "import borgcube.plugins.a", 1),
        ("daemon/bad.py", "import borgcube.web", 1),
        ("control/bad.py", "import borgcube.daemon", 1),
    ],
)
def test_a_bad_import_is_noticed(tmp_path: Path, module: str, source: str, broken: int) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for package in (
        ".", "core", "control", "daemon", "web", "plugins", "plugins/a", "plugins/b"
    ):  # fmt: skip
        directory = tmp_path / "borgcube" / package
        directory.mkdir(exist_ok=True)
        (directory / "__init__.py").touch()
    if module:
        (tmp_path / "borgcube" / module).write_text(source)
    done = lint(tmp_path)
    assert f"{broken} broken" in done.stdout, done.stdout + done.stderr
    assert bool(done.returncode) == bool(broken)


def test_every_dependency_is_explained() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    wanted = "\n".join([setup["options"]["install_requires"], *extras.values()])
    names = [re.split(r"[ <>=!~;\[]", line)[0] for line in wanted.split("\n") if line.strip()]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    explained = re.findall(r"^- `([^`]+)`: \S.{10,}$", text, re.MULTILINE)
    assert sorted(explained) == sorted(names)


WORKER = """
import borgcube.daemon.worker as worker
from borgcube.core.registry import Registry
assert Registry.load(hooks=worker.HOOKS).job_types
"""
GATE = "import borgcube.plugins.borg.gate.main, borgcube.plugins.borg.metadata.process"


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import borgcube.cli.main", "BTrees ZODB pyramid paramiko borg borgcube.core.store"),
        (WORKER, "BTrees ZODB pyramid paramiko borg borgcube.core.store"),
        (GATE, "BTrees ZODB zmq paramiko borg.archive borgcube.plugins.borg.engine"),
    ],
    ids=["command", "worker", "gate and reader"],
)
def test_what_starts_often_imports_little(program: str, unwanted: str) -> None:
    told = "\nimport sys; print(*(name for name in UNWANTED.split() if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"UNWANTED = {unwanted!r}\n{program}{told}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []
