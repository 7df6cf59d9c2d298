"""The gate process: read the terms, give up everything else, then serve one client.

It inherits four descriptors (client in, client out, vault, report) and reads its terms as
one JSON line from standard input. ``gate/confine.py`` has what it gives up: the limits are
the last line, not the first. It reports how it ends, whatever happens, because nothing else
of it is left to read: it has no standard error.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import sys
from typing import Any

from borgcube.core import memory
from borgcube.plugins.borg.gate.confine import confine
from borgcube.plugins.borg.gate.session import GateSession, Terms
from borgcube.plugins.borg.gate.verify import Rejected, id_hash_for, rehearse
from borgcube.plugins.borg.malloc import keep_large_buffers
from borgcube.plugins.borg.wire import Wire, WireError

PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031


def _terms(data: dict[str, Any]) -> Terms:
    return Terms(
        mode=data["mode"],
        opens=data["opens"].encode(),
        repository_id=bytes.fromhex(data["repository_id"]),
        key_blob=data["key_blob"].encode(),
        manifest=bytes.fromhex(data["manifest"]),
        type_byte=int(data["type_byte"]),
        id_hash=id_hash_for(data["id_kind"], bytes.fromhex(data["id_key"])),
        max_bytes=int(data["max_bytes"]),
    )


def _where(error: BaseException) -> str:
    """Return the type of an error and its innermost place; no value a client sent."""
    place, trace = "", error.__traceback__
    while trace is not None:
        file = os.path.basename(trace.tb_frame.f_code.co_filename)
        place, trace = f" in {file}:{trace.tb_lineno}", trace.tb_next
    return f"{type(error).__name__}{place}"


def main() -> int:
    """Entry point of ``python -m borgcube.plugins.borg.gate.main``."""
    parser = argparse.ArgumentParser(prog="borgcube-gate")
    for name in ("peer-in", "peer-out", "vault", "report"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    keep_large_buffers()
    terms = _terms(json.loads(sys.stdin.readline()))
    for descriptor in (options.peer_in, options.peer_out):
        try:
            fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # a socket, or the user's limit for pipes: it works, with smaller pieces
    vault = Wire(socket.socket(fileno=options.vault))

    def report(data: dict[str, Any]) -> None:
        # Reports are small; a full pipe only delays us. RLIMIT_FSIZE is not for pipes.
        os.write(options.report, json.dumps(data).encode() + b"\n")

    rehearse()  # whatever is imported late is imported now
    confined = confine(keep=(options.peer_in, options.peer_out, options.vault, options.report))
    session = GateSession(terms, options.peer_in, options.peer_out, vault, report)
    session.tell(confined=confined.as_data())
    try:
        session.start_threads()
        session.run()
        ending, code = dict[str, Any](), 0
    except Rejected as error:
        ending, code = {"refused": str(error), "kind": error.kind}, 1
    except WireError as error:
        ending, code = {"vault_lost": str(error)}, 2
    except BrokenPipeError:
        ending, code = {}, 0
    except Exception as error:
        # Our own limit of memory: nothing that a client may send takes so much.
        short = memory.is_shortage(error)
        ending = {"memory": confined.memory_bytes} if short else {"failed": _where(error)}
        code = 3
    session.tell(ended=True, committed=session.committed, **ending)
    return code


if __name__ == "__main__":
    sys.exit(main())
