"""The control method that tests the way to a client step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core import home as places
from borgcube.core.errors import NotFound
from borgcube.daemon import hostkeys
from borgcube.daemon.control import Later, method
from borgcube.daemon.diagnosis import Diagnosis
from borgcube.daemon.methods_clients import ClientMethods

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon


class DiagnosisMethods:
    """client.diagnose"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._clients = ClientMethods(daemon)

    @method("client.diagnose", audited=False)
    def diagnose(self, *, name: str) -> Later:
        """Test a client: name, port, host key, login, shell, borg. Return the steps, each with
        ``state`` good, bad or skipped, what was ``said`` and the ``next_step``."""
        transport, address, context, borg = self._clients.reach(name)
        engines = self._daemon.registry.engines
        if not engines:
            raise NotFound("No repository engine is loaded.", next_step="See: borgcube plugins")
        kind, engine = sorted(engines.items())[0]
        state = places.engine_state_dir(self._daemon.home, kind)

        def work() -> dict[str, Any]:
            steps = Diagnosis(
                transport, address, context,
                probe=lambda connection: engine.probe(connection, borg=borg, state_dir=state),
            ).run()  # fmt: skip
            return {"good": all(step.state != "bad" for step in steps),
                    "steps": [step.as_data() for step in steps]}  # fmt: skip

        return Later(work, always=lambda: hostkeys.remove_directory(context.runtime_dir))
