"""Who may ask the daemon for what: one place that judges every request of console and API.

:mod:`.commands` declares each command of the control socket: what it needs, and what each of
its fields names. :mod:`.naming` finds what a name stands for and whose it is, :mod:`.judging`
asks about all of it, wherever it stands, :mod:`.besides` says what a request needs by what it
says, :mod:`.serverside` is about what reaches the server itself, :mod:`.table` writes the
declarations down for docs/guarantees.md.

The daemon asks in the same step as it acts (``daemon/control.py``). Requests without an
asker are the local administrator's: whoever reaches the socket owns the home. Pure but for
paths that are looked up; no plugin is known here.
"""

from __future__ import annotations

from borgcube.core.authority.commands import COMMANDS, Command, Reference
from borgcube.core.authority.judging import judge
from borgcube.core.authority.naming import Kind
from borgcube.core.authority.serverside import Server

__all__ = ["COMMANDS", "Command", "Kind", "Reference", "Server", "judge"]
