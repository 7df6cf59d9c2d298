"""The help of every command: complete, readable at 80 columns, and near misses are named."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from borgcube.cli import helping, main, output


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    monkeypatch.setenv("COLUMNS", "80")
    return main.build([])


def test_every_argument_of_every_command_is_explained(program: argparse.ArgumentParser) -> None:
    silent = [
        (command.prog, action.option_strings or action.dest)
        for command in commands(program)
        for action in command._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []
    assert [command.prog for command in commands(program) if not command.description] == []


def test_all_help_fits_into_80_columns(program: argparse.ArgumentParser) -> None:
    wide = [
        (command.prog, line)
        for command in commands(program)
        for line in command.format_help().splitlines()
        if len(line) > 80
    ]
    assert wide == []


def test_every_built_in_command_has_its_place_in_the_help(program: argparse.ArgumentParser) -> None:
    shown = program.format_help()
    for names in helping.GROUPS.values():
        for name in names:
            assert f"\n  {name} " in shown, name
    _before, _title, rest = shown.partition(f"{helping.FROM_PLUGINS}:\n")
    assert rest.partition("\noptions:")[0].split()[0] == "borg"
    assert rest.partition("\noptions:")[0].strip().count("\n") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clint", "list"], "borgcube: There is no command 'clint'. Did you mean: borgcube client"),
        (["client", "lst"], "There is no command 'lst'. Did you mean: borgcube client list"),
        (["xyzzy"], "borgcube: There is no command 'xyzzy'. See: borgcube --help"),
        (["client", "add"], "See: borgcube client add --help"),
        (["job", "list", "--limit", "x"], "See: borgcube job list --help"),
    ],
)  # fmt: skip
def test_a_slip_is_answered_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run(words)
    complaint = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in complaint and complaint.count("\n") == 1


def test_without_a_command_all_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert "backing up and restoring:" in capsys.readouterr().err


def test_a_complaint_and_its_next_step_are_two_sentences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.complain("It cannot be reached: no route to host", "Is it on?")
    output.complain("There is none.", "Make one: borgcube init")
    assert capsys.readouterr().err.splitlines() == [
        "borgcube: It cannot be reached: no route to host. Is it on?",
        "borgcube: There is none. Make one: borgcube init",
    ]
