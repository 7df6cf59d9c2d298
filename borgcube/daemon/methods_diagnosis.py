"""The control methods that ask a client's host: its keys, a login, the way step by step.

The host is asked by a child (:mod:`borgcube.daemon.hostask`); nothing that it says is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core.errors import NotFound
from borgcube.core.hostkeys import from_texts
from borgcube.core.transports import ClientAddress
from borgcube.daemon import hostkeys
from borgcube.daemon.control import Awaited, method
from borgcube.daemon.hostanswers import DIAGNOSE, KEYS, TEST, Answer
from borgcube.daemon.hostask import Question
from borgcube.daemon.orders import address_of, find

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


class DiagnosisMethods:
    """client.host_keys, client.test and client.diagnose"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _client(self, name: str) -> tuple[ClientAddress, str]:
        """Return a client's address and its borg."""
        with self._daemon.store.reading() as root:
            client = find(root.clients, name, what="client")
            return address_of(client), client.borg

    def _of_engine(self, asked: str, name: str) -> Question:
        address, borg = self._client(name)
        engines = self._daemon.registry.engines
        if not engines:
            raise NotFound("No repository engine is loaded.", next_step="See: borgcube plugins")
        return Question(asked, address, borg=borg, engine=min(engines))

    @method("client.host_keys")
    def host_keys(self, *, name: str) -> Awaited:
        """Return the keys the host offers, unverified, for a person to compare, and those
        that were ``trusted`` for it until now."""
        address, _ = self._client(name)
        trusted = from_texts(address.host_keys)
        host, port = address.host, address.port

        def finish(answer: Answer) -> dict[str, Any]:
            return {
                "keys": hostkeys.shown(answer.keys, host=host, port=port),
                "trusted": hostkeys.shown(trusted, host=host, port=port),
                "known": all(key in trusted for key in answer.keys),
            }

        return Awaited(self._daemon.hosts.ask(Question(KEYS, address)), finish)

    @method("client.test")
    def test(self, *, name: str) -> Awaited:
        """Log in and ask for the version of borg."""
        future = self._daemon.hosts.ask(self._of_engine(TEST, name))
        return Awaited(future, lambda answer: {"ok": True, "borg_version": answer.version})

    @method("client.diagnose", audited=False)
    def diagnose(self, *, name: str) -> Awaited:
        """Test a client: name, port, host key, login, shell, borg. Return the steps, each with
        ``state`` good, bad or skipped, what was ``said`` and the ``next_step``."""

        def finish(answer: Answer) -> dict[str, Any]:
            return {"good": all(step.state != "bad" for step in answer.steps),
                    "steps": [step.as_data() for step in answer.steps]}  # fmt: skip

        return Awaited(self._daemon.hosts.ask(self._of_engine(DIAGNOSE, name)), finish)
