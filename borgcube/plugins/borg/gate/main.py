"""The gate process: confine itself, then serve one client.

It inherits four descriptors (client in, client out, vault, report), reads its terms as
one JSON line from standard input, and then gives up the right to open a file, write one,
or gain privileges: the limits are the last line, not the first.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

from borgcube.plugins.borg.gate.session import GateSession, Terms
from borgcube.plugins.borg.gate.verify import Rejected, id_hash_for
from borgcube.plugins.borg.malloc import keep_large_buffers
from borgcube.plugins.borg.wire import Wire, WireError

MEMORY_BYTES = 1 << 30
PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031


def confine() -> None:
    """Allow no new descriptor, no file growth, no core dump, no new privilege."""
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    highest = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


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

    confine()
    session = GateSession(terms, options.peer_in, options.peer_out, vault, report)
    try:
        session.run()
        session.tell(ended=True, committed=session.committed)
        return 0
    except Rejected as error:
        session.tell(ended=True, committed=session.committed, refused=str(error))
        return 1
    except WireError as error:
        session.tell(ended=True, committed=session.committed, vault_lost=str(error))
        return 2
    except BrokenPipeError:
        session.tell(ended=True, committed=session.committed)
        return 0
    except MemoryError:
        session.tell(ended=True, committed=session.committed, refused="memory limit reached")
        return 1


if __name__ == "__main__":
    sys.exit(main())
