"""Putting what was restored into its place on a client, where others may be at work.

Borg extracts by paths, and remembers little of what it found at them. Whoever can write to the
target, or to a directory on the way there, could lead a borg that runs as root elsewhere. So it
extracts into a directory of its own, *the stage*: 0700, of the login's user, in a place where
nobody but root and that user can change what is where, on the target's file system if it has such
a place. Plain shell moves the result from there:

- Each step goes into one directory and then asks where it is (``cd -P``, ``pwd -P``). A link is
  followed only on the way to the target, when it is root's or ours and so is its directory.
- An entry goes to its place by ``mv SOURCE .``: that is one rename(2) into the directory in which
  the shell is, whatever somebody does to the path meanwhile. The name itself is never followed.
- Between file systems ``mv`` copies, path by path. A hard link of an empty file shows that a rename
  will do. Where it does not, the copy is made in a directory of ours beside its place, seen from
  within, and renamed from there.

Directories that are there already stay what they are (owner, mode, times) and get what is new;
files, and links in place of directories, are replaced.
"""

from __future__ import annotations

from collections.abc import Callable

from borgcube.core.errors import JobFailed, Problem
from borgcube.core.transports import Completed, Connection
from borgcube.core.untrusted import last_words, words

PREPARE_S = 120.0
CLEAN_S = 600.0
MAX_LEFT = 200  # paths that are told of
SHARED, UNUSABLE, LINK, NO_PLACE = 3, 4, 5, 6  # exit codes of the scripts

# Functions of both scripts. A safe directory: from the root on, each is root's or ours, and others
# can write to none, or only where the sticky bit keeps them from what is not theirs.
_COMMON = r"""
set -u
LC_ALL=C
export LC_ALL
me=$(id -u)
# A group of that user's own, as many systems make one for each, is nobody else.
own_group=none
[ "$(id -gn)" != "$(id -un)" ] || own_group=$(id -g)
# The name of the current directory, newlines at its end included.
where() { at=$(pwd -P 2>/dev/null && echo .) || return 1; at=${at%??}; }
ours() {
  uid='' gid='' mode=''
  read -r mode _links uid gid _rest <<END
$(ls -ldn -- "$1" 2>/dev/null)
END
  [ "$uid" = 0 ] || [ "$uid" = "$me" ]
}
open_to_others() {
  case $mode in
    ????????w*) return 0;;
    ?????w*) [ "$gid" != "$own_group" ];;
    *) return 1;;
  esac
}
sticky() { case $mode in ?????????[tT]*) return 0;; esac; return 1; }
safe() {
  way=$1
  while :; do
    ours "$way" || return 1
    ! open_to_others || sticky || return 1
    [ "$way" != / ] || return 0
    way=${way%/*}
    way=${way:-/}
  done
}
# Go to the directory $1; with $2 make what is missing. Sets shared to 1 when others can change it.
enter() {
  cd / || exit 4
  left=${1#/} shared=0
  while [ -n "$left" ]; do
    part=${left%%/*}
    case $left in */*) left=${left#*/};; *) left='';; esac
    case $part in ''|.) continue;; ..) exit 4;; esac
    where || exit 4
    from=$at own=1
    if [ "$2" = make ] && [ ! -e "./$part" ] && [ ! -L "./$part" ]; then
      mkdir "./$part" || exit 4
    fi
    ours "./$part" || own=0
    cd -P "./$part" || exit 4
    where || exit 5
    if [ "$at" != "${from%/}/$part" ]; then
      [ "$own" = 1 ] && [ "$shared" = 0 ] || exit 5
    fi
    safe "$at" || shared=1
  done
  where || exit 5
  ours "$at" || shared=1
  ! open_to_others || shared=1
}
# Whether something of the stage $1 can be renamed into the current directory.
near() {
  [ "$1" != "${at%/}/$name" ] || return 0
  : >"$1/$name.probe" && ln -- "$1/$name.probe" . 2>/dev/null || return 1
  rm -f -- "./$name.probe"
}
# Make a stage for the current directory, as near to it as is safe.
make_stage() {
  up=$at
  while :; do
    stage=${up%/}/$name
    if safe "$up" && (umask 077; mkdir "$stage") 2>/dev/null; then
      if near "$stage"; then
        rm -f "$stage/$name.probe"
        return 0
      fi
      rm -rf "$stage"
    fi
    [ "$up" != / ] || return 1
    up=${up%/*}
    up=${up:-/}
  done
}
"""

# $1 target, $2 name of the stage, $3 whether others may write there, $4 what stages of this server
# begin with. Those of runs that died are swept after a day.
PREPARE = (
    _COMMON
    + r"""
name=$2
printf '\0'
enter "$1" make
if [ "$shared" = 1 ] && [ "$3" != yes ]; then
  printf '%s\0' "$at"
  exit 3
fi
# Elsewhere if nothing is safe, as in a home that is a file system of its own, or can be written.
make_stage || {
  cd -P "${TMPDIR:-/tmp}" && where && make_stage
} || exit 6
for old in "${stage%/*}"/"$4"*; do
  [ "$old" != "$stage" ] && [ -d "$old" ] && [ ! -L "$old" ] && [ -O "$old" ] || continue
  [ -n "$(find "$old" -prune -mmin +1440 2>/dev/null)" ] && rm -rf "$old"
done
mkdir -m 700 "$stage/x" || exit 4
printf '%s\0end\0' "$stage"
"""
)

# $1 target, $2 stage. Prints what stays behind.
PLACE = (
    _COMMON
    + r"""
name=${2##*/}
stage=$2
# Whether $1 is a directory and no link.
is_directory() { [ -d "$1" ] && [ ! -L "$1" ]; }
# Make room for the entry $1 in the directory $2, to which it is about to be renamed.
make_room() {
  if is_directory "$1"; then
    # A directory takes the place of a file or a link only when that is gone.
    if [ -L "$2/$entry" ] || [ -e "$2/$entry" ]; then rm -f -- "$2/$entry" 2>/dev/null; fi
  elif is_directory "$2/$entry"; then
    rmdir -- "$2/$entry" 2>/dev/null
  fi
}
# Put the entry $1 of the stage, called $entry, into the current directory.
put() {
  make_room "$1" .
  mv -f -- "$1" . 2>/dev/null && return 0
  # Who is not root renames a directory only with the right to write to it.
  is_directory "$1" && [ ! -w "$1" ] || return 1
  chmod u+w "$1" && mv -f -- "$1" . 2>/dev/null || return 1
  (here=${at%/}/$entry; cd -P "./$entry" && where && [ "$at" = "$here" ] && chmod u-w .)
}
# The same from another file system: by way of a directory of ours in this one. Its name here can
# be given to something else at any time, but the shell stays in it, nobody else gets in, and its
# ".." is where it was made.
put_over() {
  (umask 077; mkdir "./$name.in") 2>/dev/null || return 1
  (
    here=${at%/}/$name.in
    cd -P "./$name.in" && where && [ "$at" = "$here" ] && ours . && [ "$uid" = "$me" ] || exit 1
    case $mode in drwx--[-S]---*) ;; *) exit 1;; esac
    if mv -f -- "$1" . 2>/dev/null; then
      make_room "./$entry" ..
      mv -f -- "./$entry" .. 2>/dev/null && exit 0
    fi
    rm -rf -- "./$entry"
    exit 1
  )
  went=$?
  rmdir -- "./$name.in" 2>/dev/null
  return $went
}
# Put all entries of $1 into the current directory, which is $at. Runs in a shell of its own for
# each directory, so that there is no way back up.
place() {
  put=put
  near "$stage" || put=put_over
  for one in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    [ -e "$one" ] || [ -L "$one" ] || continue
    entry=${one##*/}
    if is_directory "$one" && is_directory "./$entry"; then
      (
        here=${at%/}/$entry
        if cd -P "./$entry" && where && [ "$at" = "$here" ]; then
          place "$one"
        else
          printf '%s\0' "$here"
        fi
      )
    else
      "$put" "$one" || printf '%s\0' "${at%/}/$entry"
    fi
  done
}
touch "$stage"
printf '\0'
enter "$1" stay
(place "$stage/x")
printf 'end\0'
"""
)


class Placing:
    """The stage of one restore on a client; ``into`` is where borg extracts."""

    def __init__(
        self, connection: Connection, target: str, *, server: str, token: str, shared: bool
    ) -> None:
        self._connection, self._target = connection, target
        self._prefix = f".borgcube-restore-{server}-"
        self._name, self._shared = f"{self._prefix}{token}", shared
        self.stage = ""

    @property
    def into(self) -> str:
        """Where borg extracts."""
        return f"{self.stage}/x"

    def prepare(self) -> None:
        """Make the target if it is missing, and the stage; raises JobFailed with what is wrong
        with the target."""
        arguments = [self._target, self._name, "yes" if self._shared else "no", self._prefix]
        done = self._run(PREPARE, arguments, timeout_s=PREPARE_S)
        told = done.stdout.split(b"\0")[1:]
        if done.exit_code == 0 and len(told) == 3 and told[1] == b"end":
            stage = told[0].decode("utf-8", "surrogateescape")
            if stage.startswith("/") and stage.endswith(f"/{self._name}"):
                self.stage = stage
                return
        raise self._failure(done)

    def place(self, *, timeout_s: float) -> list[str]:
        """Move what was extracted into place; return a warning for each thing that could not be
        moved. Raises JobFailed when nothing could."""
        done = self._run(PLACE, [self._target, self.stage], timeout_s=timeout_s)
        *left, _after = done.stdout.split(b"\0")
        if done.exit_code != 0 or not left:
            raise self._failure(done)
        # Without the end, there was more of it than is read.
        paths = [words(path.decode("utf-8", "replace")) for path in left[1:] if path != b"end"]
        told = [f"{path}: could not be put into its place" for path in paths[:MAX_LEFT]]
        if len(paths) > MAX_LEFT:
            told.append(f"{len(paths) - MAX_LEFT} more could not be put into their places")
        return told

    def clean_up(self, log: Callable[[str, str], None]) -> None:
        """Remove the stage and what is left in it."""
        if not self.stage:
            return
        try:
            self._connection.run(["rm", "-rf", "--", self.stage], timeout_s=CLEAN_S)
        except JobFailed as error:
            log("warning", f"{words(self.stage)} is left on the client: {error}")

    def _run(self, script: str, arguments: list[str], *, timeout_s: float) -> Completed:
        return self._connection.run(["sh", "-c", script, "sh", *arguments], timeout_s=timeout_s)

    def _failure(self, done: Completed) -> JobFailed:
        if done.exit_code == SHARED:
            return JobFailed(
                "target-shared", Problem.CONFIGURATION,
                f"Others than root and the login's user can write to {self._target} on the client, "
                "or to a directory on the way there.",
                next_step="Choose another directory. If it is meant so: --shared-target, or the "
                "tick in the console; links there are not followed.",
            )  # fmt: skip
        if done.exit_code == LINK:
            return JobFailed(
                "target-link", Problem.CLIENT,
                f"On the way to {self._target} is a link in a directory that others can write to.",
                next_step="Look who made it. Restore to the directory itself, or elsewhere.",
            )  # fmt: skip
        if done.exit_code == NO_PLACE:
            return JobFailed(
                "target-unsafe", Problem.CLIENT,
                f"Neither at {self._target} nor in the directory for temporary files is a place in "
                "which only root and the login's user can change what is where.",
                next_step="Set TMPDIR of that login to a directory of its own.",
            )  # fmt: skip
        return JobFailed(
            "target-unusable", Problem.CLIENT,
            f"The directory {self._target} cannot be made or used: "
            + (last_words(done.stderr) or "no reason given"),
            next_step="Choose another directory.",
        )  # fmt: skip
