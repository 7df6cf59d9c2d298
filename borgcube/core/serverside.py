"""What runs or writes on the server itself, and so is an administrator's alone.

A transport with ``runs_here`` reaches this machine as BorgCube's own user. Whoever sets up such
a client or a plan of it, or restores to a directory here, could read the master key or put a
program where the server runs it. The console and the API ask this before each action, whatever
page or endpoint it comes from. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from borgcube.core.access import Identity, Permission
from borgcube.core.errors import AccessDenied
from borgcube.core.store import Root
from borgcube.core.texts import _

CLIENT_METHODS = frozenset({"client.add", "client.set", "client.enrol"})
PLAN_METHODS = frozenset({"plan.add", "plan.set", "plan.dry_run"})


def refuse(
    me: Identity | None, method: str, params: Mapping[str, Any], root: Root,
    transports: Mapping[str, Any],
) -> None:  # fmt: skip
    """Raise AccessDenied when ``method`` with ``params`` reaches this server's own files or
    processes and ``me`` is no administrator."""
    if me is not None and me.may(Permission.ADMINISTER):
        return
    here = {name for name, one in transports.items() if getattr(one, "runs_here", False)}

    def runs_here(client: Any) -> bool:
        record = root.clients.find("name", str(client)) if client else None
        return record is not None and record.transport in here

    field = ""
    if method == "restore.start":
        to_client = params.get("to_client")
        if params.get("to_dir") is not None:
            field = "directory"
        elif params.get("unfenced"):
            field = "unfenced"
        elif isinstance(to_client, Mapping) and runs_here(to_client.get("client")):
            field = "client"
    elif method in CLIENT_METHODS:
        if params.get("transport") in here or runs_here(params.get("name")):
            field = "transport"
    elif method in PLAN_METHODS:
        plan = root.plans.find("name", str(params.get("name") or ""))
        meant = params.get("options") if method == "plan.dry_run" else params
        wanted = meant.get("client") if isinstance(meant, Mapping) else ""
        if runs_here(wanted) or (plan is not None and runs_here(plan.client)):
            field = "client"
    if field:
        raise AccessDenied(
            _("This reaches the files of the server itself, which only administrators may."),
            next_step=_("Ask an administrator, or choose another client."), field=field,
        )  # fmt: skip
