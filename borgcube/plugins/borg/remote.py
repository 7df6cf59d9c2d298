"""What runs on a client: the scripts that seed a Borg base directory and join its RPC.

POSIX shell with mkdir, cat, mkfifo and rm; no port, no address, no secret. Everything of
a run lives in one 0700 directory, ``borgcube-<server>-<token>`` below ``TMPDIR``, which
the run removes itself and a later run sweeps when its process is gone.

A directory without a process belongs to a run that has not begun, or never will. Tokens of
one repository begin alike and sort by time: an older one that the vault does not name is of
a run that died. Of other repositories nothing is known, so half an hour is given to them.
"""

from __future__ import annotations

import os
import select
import shlex
import time
from collections.abc import Sequence

MARK = "borgcube-ready"
MAX_BANNER = 64 * 1024
REPOSITORY_URL = "ssh://borgcube/r"
# What a session calls the one archive that it restores. Borg replaces placeholders in whatever
# it gets as a name, and that of an archive from outside holds what somebody chose.
RESTORED_NAME = "archive"
REPOSITORY_PATH = "/r"
DEPLOYED_BORG = '"$D/borg/borg"'  # as a word of the run script

# Where the parts of the seed go.
PLACES = {
    "rsh": ">rsh",
    "run": ">run",
    "chunks": '>"$cache/chunks"',
    "files": '>"$cache/files"',
    "borg": "| gzip -dc | tar xf -",
}

# $1 is borg on the client, the rest are paths that are to be there. Standard input is the
# seed: {sizes} bytes of each part, one after the other. It is cut up from a file, because
# head may read more from a pipe than it prints.
_PREPARE = """
set -eu
umask 077
borg=$1
shift
if [ "$borg" != deploy ]; then
  command -v "$borg" >/dev/null || exit 127
fi
printf '\\0'
for path; do
  # Borg leaves out a slash at the end: what is looked at is the link itself.
  bare=$path
  while case $bare in ?*/) ;; *) false ;; esac; do bare=${{bare%/}}; done
  if [ -L "$bare" ]; then
    printf 'l%s\\0t%s\\0' "$path" "$(readlink "$bare" 2>/dev/null)"
  elif [ ! -e "$path" ]; then
    printf 'm%s\\0' "$path"
  fi
done
printf 'end\\0'
t="${{TMPDIR:-/tmp}}"
if [ "$borg" = deploy ]; then
  # The borg that goes along runs from there: not where no program may (noexec).
  found=""
  for one in "$t" /tmp /var/tmp "${{HOME:-/}}"; do
    x="$one/borgcube-{server}-{token}.x"
    if printf '#!/bin/sh\\nexit 0\\n' >"$x" && chmod 700 "$x" && "$x"; then
      found=$one
    fi 2>/dev/null
    rm -f "$x"
    [ -z "$found" ] || break
  done
  [ -n "$found" ] || exit 126
  t=$found
fi
for old in "$t"/borgcube-{server}-*; do
  [ -d "$old" ] && [ ! -L "$old" ] && [ -O "$old" ] || continue
  p=""
  [ -f "$old/pid" ] && read -r p <"$old/pid" || :
  if [ -n "$p" ]; then
    if [ -r "/proc/$p/cmdline" ]; then
      # Not a zombie, and not somebody else with the same number.
      grep -qF -- "${{old##*/}}" "/proc/$p/cmdline" && continue
    elif kill -0 "$p" 2>/dev/null; then
      continue
    fi
  else
    token="${{old##*-}}"
    case "$token" in
      {repository}*)
        case " {others} " in *" $token "*) continue;; esac
        if expr "x$token" \\< "x{token}" >/dev/null; then
          rm -rf "$old"
          continue
        fi;;
    esac
    [ -n "$(find "$old" -prune -mmin +30 2>/dev/null)" ] || continue
  fi
  rm -rf "$old"
done
d="$t/borgcube-{server}-{token}"
mkdir "$d"
trap 'rm -rf "$d"' EXIT
cache="$d/b/.cache/borg/{repository_id}"
mkdir -p "$cache/chunks.archive.d"
cd "$cache"
echo "This is a BorgCube session cache." >README
: >files
cat >config <<'END'
[cache]
version = 1
repository = {repository_id}
manifest = {manifest_id}
key_type = {key_type}

[integrity]
manifest = {manifest_id}
END
cd "$d"
mkfifo c g e i o
cat >seed
part() {{ tail -c +"$1" seed | head -c "$2"; }}
{parts}
rm seed
chmod 700 rsh run
trap - EXIT
printf '\\n%s %s\\n' {mark} "$d"
"""

# Borg starts this instead of ssh. It tells its process number, and either lends its two
# pipes to the outer script ("direct", where /proc has them) or relays them itself. The
# outer script alone holds the write ends of "e" and "g": this one ends when that one does.
# Opening a FIFO waits for its other end, for ever if the outer script was killed; so each is
# opened for both first.
RSH = """#!/bin/sh
exec 3<&0 4>&1 </dev/null >/dev/null 6<>"$D/e" 5<"$D/e" 8<>"$D/g" 7<"$D/g" 6<&- 8<&-
echo "$$" 1<>"$D/c"
read -r how <&7 || exit 2
exec 7<&-
if [ "$how" = direct ]; then
  exec 3<&- 4>&-
  read -r over <&5
  exit 0
fi
cat <"$D/i" >&4 3<&- 4>&- &
exec cat <&3 >"$D/o" 3<&- 4>&-
"""

# For sed: the names of variables that borg, its Python or the loader of programs listen to.
_UNSET = "; ".join(
    rf"s/^\({prefix}[A-Za-z0-9_]*\)=.*/\1/p" for prefix in ("BORG_", "PYTHON", "LD_", "DYLD_")
)

_RUN = """#!/bin/sh
D={directory}
export D
unset SSH_CLIENT SSH_CONNECTION SSH_TTY
# What somebody set there for a borg of their own does not change what runs here. A value may have
# lines that look like names: then more is unset.
for name in $(env | sed -n '{names}'); do unset "$name" 2>/dev/null || :; done
cd "$D" || exit 2
{ending}
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
printf '\\n%s\\n' {mark}
exec 3<&0 4>&1 </dev/null 5<>c 8<>e 9<>g
( {change_directory}{environment} {command} </dev/null 5>&- >&2; echo "$?" >"$D/rc"; echo 0 >&5 ) 3<&- 4>&- 8>&- 9>&- &
read -r p <&5
if [ "$p" != 0 ]; then
  if [ -e "/proc/$p/fd/3" ] && [ -e "/proc/$p/fd/4" ]; then
    exec 6<"/proc/$p/fd/3" 7>"/proc/$p/fd/4"
    # 1031 is F_SETPIPE_SZ of Linux: the usual 64 KiB let Borg wait for each small piece.
    perl -e 'fcntl(STDIN, 1031, 1048576)' <&6 2>/dev/null 3<&- 4>&- 5>&- 7>&- 8>&- 9>&- || :
    cat <&3 >&7 3<&- 4>&- 5>&- 6<&- &
    inward=$!
    exec 7>&-
    echo direct >&9
    cat <&6 >&4 3<&- 4>&- 5>&- 6<&- &
    outward=$!
    exec 6<&- 3<&- 4>&-
    wait "$outward"
    echo over >&8
  else
    echo relay >&9
    cat <&3 >i 3<&- 4>&- 5>&- &
    inward=$!
    cat <o >&4 3<&- 4>&- 5>&- &
    outward=$!
    exec 3<&- 4>&-
    wait "$outward"
  fi
  read -r p <&5
  kill "$inward" 2>/dev/null
fi
exec 3<&- 4>&-
read -r code <rc
exit "$code"
"""


# How a run says that it lives, and leaves nothing behind. In a fence, its number would mean
# nothing outside and its directory is a mount: there the supervisor does the one and the worker
# the other.
_OWN_ENDING = """echo "$$" >pid
trap 'cd /; rm -rf "$D" || exit 120' EXIT"""


def prepare_script(
    *, server: str, token: str, repository_id: str, manifest_id: str, key_type: int,
    sizes: Sequence[tuple[str, int]], others: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return the script that makes the session's directory and prints where it is.

    ``sizes`` are the parts of the seed in their order, as (:data:`PLACES` key, bytes);
    ``others`` the tokens of the repository's other sessions.
    """
    lines, start = [], 1
    for name, size in sizes:
        if size:  # some heads refuse to print nothing
            lines.append(f"part {start} {size} {PLACES[name]}")
        start += size
    return _PREPARE.format(
        repository=repository_id[:8], others=" ".join(others),
        server=server, token=token, repository_id=repository_id, manifest_id=manifest_id,
        key_type=key_type, parts="\n".join(lines), mark=MARK,
    )  # fmt: skip


def looked_at(output: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Return what the prepare script says of paths: those that are not there, and those that
    are symbolic links, with where they lead. Anything odd it printed is left out."""
    _banner, *listed = output.split(b"\0")
    missing: list[bytes] = []
    links: dict[bytes, bytes] = {}
    if b"end" not in listed:
        return missing, links
    for number, one in enumerate(listed[: listed.index(b"end")]):
        if one[:1] == b"m":
            missing.append(one[1:])
        elif one[:1] == b"l" and (target := listed[number + 1])[:1] == b"t":
            links[one[1:]] = target[1:]
    return missing, links


def run_script(
    *, command: Sequence[str], environment: dict[str, str], directory: str = "", into: str = "",
    fenced: bool = False,
) -> str:  # fmt: skip
    """Return the outer script: it runs ``command`` and joins Borg's RPC to its own streams.

    The directory is its own; ``into`` is where the command is to run. When it is ``fenced``,
    whoever runs it writes the file ``pid`` and removes the directory.
    """
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    return _RUN.format(
        mark=MARK,
        names=_UNSET,
        ending="" if fenced else _OWN_ENDING,
        directory=directory or '"${0%/*}"',
        change_directory=f"cd {shlex.quote(into)} && " if into else "",
        environment=settings,
        command=" ".join(
            DEPLOYED_BORG if word == DEPLOYED_BORG else shlex.quote(word) for word in command
        ),
    )


def borg_environment() -> dict[str, str]:
    """Return Borg's environment on a client, as shell words."""
    return {
        "BORG_BASE_DIR": '"$D/b"',
        "BORG_CACHE_DIR": '"$D/b/.cache/borg"',
        "BORG_CONFIG_DIR": '"$D/b/.config/borg"',
        "BORG_SECURITY_DIR": '"$D/b/.config/borg/security"',
        # Borg splits it as a shell would. It is read by a shell, since a directory for temporary
        # files may have blanks in its name, and no program may run from there (noexec).
        "BORG_RSH": """'sh -c ". \\"$D/rsh\\""'""",
        "BORG_PASSPHRASE": "",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_EXIT_CODES": "modern",
        "BORG_WORKAROUNDS": "",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
    }


def skip_banner(fd: int, *, timeout_s: float = 60.0) -> bool:
    """Read what a login shell prints before the outer script's mark, and nothing after it.

    Returns False when the mark does not come in time, or not within 64 KiB. An early end of
    the stream is left to the reader of what follows.
    """
    mark = f"\n{MARK}\n".encode()
    seen, deadline = bytearray(), time.monotonic() + timeout_s
    while not seen.endswith(mark):
        left = deadline - time.monotonic()
        if left <= 0 or len(seen) > MAX_BANNER or not select.select([fd], [], [], left)[0]:
            return False
        # One byte at a time: what follows the mark is for the gate.
        byte = os.read(fd, 1)
        if not byte:
            return True
        seen += byte
    return True


def ready_directory(output: bytes, *, server: str, token: str) -> str | None:
    """Return the directory the prepare script printed, or None.

    Only a line of ours counts, whatever banner a login shell prints before it.
    """
    for line in reversed(output.decode("utf-8", "replace").splitlines()):
        mark, _, directory = line.partition(" ")
        if mark == MARK and directory.endswith(f"/borgcube-{server}-{token}"):
            return directory
    return None
