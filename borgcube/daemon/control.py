"""The control socket: checks requests, calls methods, answers.

A request is one JSON frame ``{"v": 1, "id", "method", "params", "actor"}``, the answer one
frame ``{"id", "ok", "result"}`` or ``{"id", "ok", "error": {message, next_step, kind, field,
exit_code}}``. ``actor`` (user, via, address) is for the audit trail and may be left out.
A method's keyword-only signature is its schema: unknown, missing and wrongly typed
parameters are refused. ``asker`` says whose request it is: ``core.authority`` judges it in the
same step, before the method; without one it is the local administrator's. Methods run in the
main thread; slow work is put off to a small pool as :class:`Later` and finished in the main
thread.
"""

from __future__ import annotations

import errno
import inspect
import json
import logging
import types
import typing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import zmq

from borgcube.core.access import Identity
from borgcube.core.errors import AccessDenied, BorgCubeError, InvalidInput, TooMany
from borgcube.daemon.audit import Audit, actor_of

LOG = logging.getLogger(__name__)
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MAX_REQUEST = 1 << 20
MAX_PENDING = 64
HASHES_AT_ONCE = 2  # each takes 32 MiB
MAX_HASHES = 16


@dataclass(frozen=True)
class Later:
    """Work for the pool, which must not touch the store, and how to finish it here.

    ``always`` is called in the main thread after both, also when one raised. ``hashes``
    says that the work is a slow hash of a password: a pool of its own does few at a time and
    lets few wait, so that strangers who log in keep nothing else from being done.
    """

    work: Callable[[], Any]
    finish: Callable[[Any], Any] = lambda result: result
    always: Callable[[], None] = lambda: None
    hashes: bool = False


@dataclass(frozen=True)
class Awaited:
    """An answer that another part of the main thread will give, without taking a thread of
    the pool. ``finish`` as with :class:`Later`."""

    future: Future[Any]
    finish: Callable[[Any], Any] = lambda result: result


# Methods whose last word is one of these only look; all others go into the audit trail
# unless they say otherwise, so that a new one is not forgotten.
LOOKING = frozenset(
    {
        "ping",
        "bus",
        "doctor",
        "list",
        "show",
        "log",
        "since",
        "test",
        "host_keys",
        "touch",
        "preview",
    }
)


def method(
    name: str, *, audited: bool | None = None,
    subject: Callable[[dict[str, Any]], str] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Mark a function as the control method ``name``.

    ``audited`` overrides what :data:`LOOKING` says of the name; ``subject`` says of checked
    parameters what they act on, where one of them alone does not.
    """

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.control_method = name  # type: ignore[attr-defined]
        looks = name.rpartition(".")[2] in LOOKING
        function.audited = not looks if audited is None else audited  # type: ignore[attr-defined]
        function.audit_subject = subject  # type: ignore[attr-defined]
        return function

    return mark


def methods_of(owner: object) -> dict[str, Callable[..., Any]]:
    """Return the control methods of an object by name."""
    found = {}
    for _, function in inspect.getmembers(owner, callable):
        name = getattr(function, "control_method", None)
        if name:
            found[name] = function
    return found


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    origin = typing.get_origin(hint)
    if origin is list:
        (part,) = typing.get_args(hint)
        return isinstance(value, list) and all(_fits(item, part) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is types.NoneType:
        return value is None
    return hint is Any or type(value) is hint


def _described(hint: Any) -> str:
    names = {str: "text", int: "a whole number", bool: "true or false"}
    return names.get(hint, str(hint).replace("str", "text"))


def check_params(function: Callable[..., Any], params: Any, *, name: str) -> dict[str, Any]:
    """Check ``params`` against the signature; raises InvalidInput."""
    if not isinstance(params, dict):
        raise InvalidInput(f"{name}: params must be an object.")
    signature = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    for key, value in params.items():
        if key not in signature:
            raise InvalidInput(f"{name}: there is no parameter {key[:60]!r}.")
        if not _fits(value, hints[key]):
            raise InvalidInput(f"{name}: {key} must be {_described(hints[key])}.", field=key)
        if isinstance(value, str) and ("\0" in value or "\n" in value):
            raise InvalidInput(f"{name}: {key} must be one line.", field=key)
    for key, parameter in signature.items():
        if parameter.default is parameter.empty and key not in params:
            raise InvalidInput(f"{name}: the parameter {key} is missing.", field=key)
    return params


Judge = Callable[[Identity | None, str, dict[str, Any]], None]


def asker_of(request: dict[str, Any]) -> Identity | None:
    """Return whose request it is, None for a stranger; raises InvalidInput."""
    given = request["asker"]
    if given == {}:
        return None
    try:
        return Identity.from_data(given)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput("The request's asker is nobody.") from error


def nobody(_me: Identity | None, _name: str, _params: dict[str, Any]) -> None:
    """Refuse everybody but the local administrator: the judge where there is none."""
    raise AccessDenied("Nobody judges requests here.")


def error_data(error: BaseException) -> dict[str, Any]:
    """Return what a caller is told about an error; details of bugs stay in the log."""
    if isinstance(error, BorgCubeError):
        return {"message": error.message, "next_step": error.next_step,
                "kind": type(error).__name__, "field": error.field,
                "exit_code": error.exit_code}  # fmt: skip
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return {"message": f"The daemon cannot write its home: {error.strerror}.",
                "next_step": "Make room there, or make it writable, and try again.",
                "kind": "HomeWriteError", "field": "", "exit_code": 2}  # fmt: skip
    return {"message": f"The daemon made a mistake ({type(error).__name__}).",
            "next_step": "See logs/borgcubed.log in the home directory.",
            "kind": "InternalError", "field": "", "exit_code": 2}  # fmt: skip


@dataclass(frozen=True)
class Pending:
    """A request whose slow part is in the pool. ``entry`` is its line of the audit trail."""

    peer: bytes
    request_id: Any
    future: Future[Any]
    later: Later
    entry: str = ""


class Control:
    """The server side of the control socket."""

    def __init__(
        self, socket: zmq.Socket[bytes], methods: dict[str, Callable[..., Any]], *,
        audit: Audit, judge: Judge = nobody,
    ) -> None:  # fmt: skip
        self._socket = socket
        self._methods = methods
        self._audit = audit
        self._judge = judge
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="control")
        self._hashing = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="hashing")
        self._pending: list[Pending] = []

    @property
    def busy(self) -> bool:
        """Whether something runs in the pool."""
        return bool(self._pending)

    def receive(self) -> None:
        """Answer all waiting requests."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) == 2:
                self._handle(frames[0], frames[1])

    def _handle(self, peer: bytes, payload: bytes) -> None:
        request_id: Any = None
        entry = ""
        try:
            request = self._parse(payload)
            request_id = request["id"]
            name = request["method"]
            function = self._methods.get(name)
            if function is None:
                raise InvalidInput(f"There is no method {name[:60]!r}.",
                                   next_step="Is this program newer than the daemon?")  # fmt: skip
            params = check_params(function, request.get("params", {}), name=name)
            if getattr(function, "audited", False):
                told = getattr(function, "audit_subject", None)
                entry = self._audit.begin(
                    actor_of(request), name, {"name": told(params)} if told else params
                )
            if "asker" in request:
                self._judge(asker_of(request), name, params)
            result = function(**params)
            if isinstance(result, Awaited):
                later = Later(lambda: None, result.finish)
                self._pending.append(Pending(peer, request_id, result.future, later, entry))
                return
            if isinstance(result, Later):
                most = MAX_HASHES if result.hashes else MAX_PENDING
                if sum(p.later.hashes is result.hashes for p in self._pending) >= most:
                    result.always()
                    raise TooMany("The daemon is busy.", next_step="Try again in a moment.")
                future = (self._hashing if result.hashes else self._pool).submit(result.work)
                self._pending.append(Pending(peer, request_id, future, result, entry))
                return
        except Exception as error:
            self._close_entry(entry, error)
            self._answer_error(peer, request_id, error)
            return
        self._close_entry(entry)
        self._answer(peer, {"id": request_id, "ok": True, "result": result})

    def _close_entry(self, entry: str, error: BaseException | None = None) -> None:
        if not entry:
            return
        try:
            self._audit.end(entry, refused=error_data(error)["message"] if error else "")
        except Exception:
            LOG.exception("the audit trail could not be completed")

    @staticmethod
    def _parse(payload: bytes) -> dict[str, Any]:
        if len(payload) > MAX_REQUEST:
            raise InvalidInput("The request is larger than 1 MiB.")
        try:
            request = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise InvalidInput("The request is not valid JSON.") from error
        if (
            not isinstance(request, dict)
            or request.get("v") != 1
            or not isinstance(request.get("id"), str)
            or not isinstance(request.get("method"), str)
        ):
            raise InvalidInput("The request needs v (1), id and method.")
        return request

    def step(self) -> None:
        """Finish what the pool has done."""
        for pending in [one for one in self._pending if one.future.done()]:
            self._pending.remove(pending)
            later = pending.later
            try:
                try:
                    result = later.finish(pending.future.result())
                finally:
                    later.always()
            except Exception as error:
                self._close_entry(pending.entry, error)
                self._answer_error(pending.peer, pending.request_id, error)
                continue
            self._close_entry(pending.entry)
            self._answer(pending.peer, {"id": pending.request_id, "ok": True, "result": result})

    def _answer_error(self, peer: bytes, request_id: Any, error: Exception) -> None:
        if not isinstance(error, BorgCubeError):
            LOG.error("a control request failed", exc_info=error)
        self._answer(peer, {"id": request_id, "ok": False, "error": error_data(error)})

    def _answer(self, peer: bytes, answer: dict[str, Any]) -> None:
        try:
            self._socket.send_multipart([peer, json.dumps(answer).encode()], zmq.NOBLOCK)
        except zmq.ZMQError:
            LOG.warning("a caller did not wait for its answer")

    def close(self) -> None:
        """End the pools without waiting."""
        for pool in (self._pool, self._hashing):
            pool.shutdown(wait=False, cancel_futures=True)
