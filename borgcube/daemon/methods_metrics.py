"""Control methods about the metrics' own token; of it only the digest is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from borgcube.core import credentials
from borgcube.daemon.control import method

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

TOKEN = "metrics_token"


class MetricsMethods:
    """metrics.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    @method("metrics.token")
    def token(self) -> dict[str, Any]:
        """Make a new token, shown only now; the old one ends."""
        made = credentials.new_token()
        with self._daemon.store.transact() as root:
            root.settings[TOKEN] = credentials.digest(made)
        return {"token": made}

    @method("metrics.revoke")
    def revoke(self) -> dict[str, Any]:
        """End the token; the figures are then for users and API tokens only."""
        with self._daemon.store.transact() as root:
            had = bool(root.settings.pop(TOKEN, ""))
        return {"revoked": had}
