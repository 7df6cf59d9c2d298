"""Why a job ended: the blame is where it belongs, and words are true."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from borgcube.core.errors import JobFailed, Problem
from borgcube.plugins.borg.clientend import killed
from borgcube.plugins.borg.hearing import Outcome
from borgcube.plugins.borg.pull import judge
from borgcube.plugins.borg.vault.causes import HomeWriteError, cause_of
from borgcube.plugins.borg.wanted import Wanted

ADMITTED = {"id": "a" * 64, "name": "a", "files": 1}
OPTIONS = {"plan": "p", "archive": "a", "paths": ["/x"]}


def judged(outcome: Outcome, admitted: dict[str, Any] | None) -> Any:
    return judge(outcome, admitted, wanted=Wanted(), options=OPTIONS, client="Client c")


@pytest.mark.parametrize(("code", "name"), [(137, "SIGKILL"), (143, "SIGTERM"), (139, "SIGSEGV")])
def test_a_borg_that_was_killed_is_named(code: int, name: str) -> None:
    with pytest.raises(JobFailed, match=name) as failure:
        judged(Outcome(exit_code=code, gate_ended=True), None)
    assert failure.value.cause.kind == "borg-killed" and failure.value.violation is None


@pytest.mark.parametrize("code", [126, 127])
def test_a_borg_that_a_shell_could_not_start_broke_no_rule(code: int) -> None:
    with pytest.raises(JobFailed, match="Permission denied") as failure:
        judged(Outcome(exit_code=code, gate_ended=True, errors=["Permission denied"]), None)
    assert failure.value.cause.kind == "borg-not-started" and failure.value.violation is None
    with pytest.raises(JobFailed) as failure:
        judged(Outcome(exit_code=100, gate_ended=True), None)
    assert failure.value.cause.kind == "no-archive" and failure.value.violation is not None


@pytest.mark.parametrize("code", [None, 0, 1, 2, 100, 107, 127, 128, 255, -9, 193])
def test_other_ends_are_no_kills(code: int | None) -> None:
    assert killed(code, client="c") is None


def test_a_client_whose_vault_was_lost_is_not_blamed() -> None:
    outcome = Outcome(exit_code=2, errors=["Connection closed by remote host"], vault_lost=True)
    with pytest.raises(JobFailed) as failure:
        judged(outcome, None)
    assert failure.value.cause.problem == Problem.SERVER


def test_what_the_server_cut_off_is_not_called_a_warning_of_the_client() -> None:
    cut = Outcome(exit_code=2, errors=["Connection closed by remote host"], committed=False)
    result = judged(cut, ADMITTED)
    assert result.state == "warning" and result.cause.problem == Problem.SERVER
    assert "on the client" not in result.cause.message and "complete" in result.cause.message
    told = Outcome(
        exit_code=100, warnings=["x: file changed while we backed it up"], committed=True
    )
    result = judged(told, ADMITTED)
    assert result.cause.problem == Problem.CLIENT and result.cause.message.startswith("1 warning ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_no_more_promises_no_reuse(number: int) -> None:
    """The vault ends then, with all that it had not committed."""
    for error in (OSError(number, "x"), HomeWriteError(number, "x")):
        cause = cause_of(error)
        assert "reused" not in cause.next_step and "sent anew" in cause.next_step, cause
    if number == errno.EIO:
        assert "cannot be written" not in cause_of(OSError(number, "x")).message
