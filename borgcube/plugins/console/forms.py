"""The fields of the console's forms, with the words that explain them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from borgcube.core.access import EXPLAINED, Permission, Role
from borgcube.core.errors import InvalidInput
from borgcube.core.forms import Field
from borgcube.plugins.console import queries

COMPRESSIONS = (
    ("lz4", "lz4: very fast, saves a little"),
    ("zstd,3", "zstd 3: fast, saves more"),
    ("zstd,8", "zstd 8: slower, saves a little more again"),
    ("zlib,6", "zlib 6: for very old machines"),
    ("lzma,6", "lzma 6: slow, saves the most"),
    ("auto,zstd,3", "auto: zstd 3 where it helps, nothing for what is compressed already"),
    ("none", "none"),
)
FILES_CACHE = (
    ("ctime,size", "change time and size (safe)"),
    ("mtime,size", "modification time and size (network file systems)"),
    ("disabled", "read every file every time"),
)


def client_fields(request: Any) -> list[Field]:
    """Return the fields of a new client."""
    known = sorted(request.plugins.transports)
    names = {"openssh": "SSH (the system's ssh)", "local": "this server itself",
             "paramiko": "SSH without an ssh program"}  # fmt: skip
    first = [name for name in ("openssh", "paramiko", "local") if name in known]
    order = [*first, *(name for name in known if name not in first)]
    return [
        Field("name", "Name", required=True, placeholder="web1",
              help="How you call this machine. It cannot be changed later."),
        Field("host", "Address", placeholder="web1.example.org",
              help="Host name or IP address, as this server reaches it. Leave it empty for"
              " this server itself."),
        Field("user", "Log in as", default="root",
              help="root can read everything. Any user works for what that user can read."),
        Field("port", "Port", "number", default="22", least=1, most=65535, group="More"),
        Field("transport", "How to reach it", "choice", default=order[0] if order else "",
              choices=[(name, names.get(name, name)) for name in order], group="More"),
        Field("borg", "borg on the client", default="borg", group="More",
              help="The program's name or path there. Versions 1.2 to 1.4 work."),
        Field("domain", "Domain", group="More",
              help="Clients of one domain may learn which chunks the others have stored, and"
              " so upload less. Leave it empty to keep this client to itself."),
    ]  # fmt: skip


def limit_fields() -> list[Field]:
    """Return the fields that limit a client; empty or 0 means no limit."""
    none = "no limit"
    return [
        Field("max_job_bytes", "One backup may store", "size", default=0, placeholder=none,
              help="Such as 50G, counted as stored. A backup that hits a limit fails and goes"
              " on from there when it is run again.", group="Limits"),
        Field("max_total_bytes", "All its archives may store", "size", default=0,
              placeholder=none, help="Deleting archives makes room.", group="Limits"),
        Field("max_files", "Files in one archive", "number", default=0, least=0,
              most=10**12, help="Directories and links count too. 0 means no limit.",
              group="Limits"),
        Field("max_duration_s", "A backup may take (s)", "number", default=0, least=0,
              most=10**9, help="0 means no limit.", group="Limits"),
        Field("max_sessions", "Jobs at once", "number", default=0, least=0, most=1000,
              help="Others wait in the queue. 0 means no limit.", group="Limits"),
    ]  # fmt: skip


def _with_stored(spec: Field, value: Any) -> Field:
    """Return a choice that also offers what is stored, whatever the list says."""
    if spec.kind != "choice" or any(value == key for key, _ in spec.choices):
        return spec
    return replace(spec, choices=[*spec.choices, (str(value), str(value))])


def client_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a client that can be changed."""
    fields = [spec for spec in client_fields(request) if spec.name != "name"]
    fields += [
        Field("identity", "Private key on this server", group="More",
              help="The path of the key file that logs in. Clients that were added here have"
              " one of their own."),
        Field("options", "Options of the transport", "lines", group="More",
              placeholder="NAME=VALUE", help="One NAME=VALUE a line."),
        *limit_fields(),
    ]  # fmt: skip
    return [_with_stored(spec, data.get(spec.name)) for spec in fields]


def client_shown(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's data as values of the edit form."""
    return {**data, "options": [f"{key}={value}" for key, value in data["options"].items()]}


def client_meant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that the edit form's values mean; raises InvalidInput."""
    options = {}
    for line in values["options"]:
        name, equals, value = line.partition("=")
        if not name.strip() or not equals:
            raise InvalidInput(f"{line[:80]!r} is not NAME=VALUE.", field="options")
        options[name.strip()] = value.strip()
    return {**values, "options": options}


def plan_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a plan that can be changed."""
    return [_with_stored(spec, data.get(spec.name))
            for spec in plan_fields(request) if spec.name != "name"]  # fmt: skip


def repository_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a repository that can be changed."""
    return [floor_field()]


def floor_field() -> Field:
    """Return the field for the space that is left free."""
    return Field("free_floor_bytes", "Leave free on the disk", "size", default=1 << 30,
                 help="No backup begins or goes on when less than this is free. Deleting and"
                 " restoring go on.")  # fmt: skip


def plan_fields(request: Any) -> list[Field]:
    """Return the fields of a new plan."""
    clients = [str(r.name) for r in queries.by_name(request, request.db.clients)]
    repositories = [str(r.name) for r in request.db.repositories.newest(queries.MAX_RECORDS)]
    return [
        Field("name", "Name", required=True, placeholder="web1-etc",
              help="It begins the names of its archives. It cannot be changed later."),
        Field("client", "Client", "choice", required=True,
              choices=[(name, name) for name in clients]),
        Field("repository", "Into repository", "choice", required=True,
              choices=[(name, name) for name in sorted(repositories)]),
        Field("paths", "What to back up", "lines", required=True, placeholder="/etc\n/home",
              help="One path a line, as it is called on the client."),
        Field("excludes", "Leave out", "lines", placeholder="*/.cache\n/home/*/Downloads",
              help="One pattern a line, as in borg --exclude."),
        Field("compression", "Compression", "choice", default="zstd,3", choices=COMPRESSIONS,
              help="Done by the client, before anything is sent."),
        Field("one_file_system", "Stay on one file system", "checkbox", default=False,
              help="Do not follow mounts below the paths.", group="More"),
        Field("exclude_caches", "Leave out directories marked as caches", "checkbox",
              default=False, help="Those with a CACHEDIR.TAG file.", group="More"),
        Field("exclude_if_present", "Leave out directories that hold a file called", "lines",
              placeholder=".nobackup", group="More"),
        Field("patterns", "Patterns", "lines", group="More",
              help="One borg pattern a line, such as + re:keep or - sh:**/tmp."),
        Field("upload_ratelimit_kib", "Upload at most (KiB/s)", "number", default="0", least=0,
              most=10_000_000, help="0 means no limit.", group="More"),
        Field("files_cache", "A file is unchanged when these are", "choice",
              default="ctime,size", choices=FILES_CACHE, group="More"),
        Field("retries", "Try again", "number", default="1", least=0, most=100, group="More",
              help="How often a job is run again that was lost or failed for the network."),
        Field("idle_timeout_s", "Give up after silence of (s)", "number", default="900",
              least=1, most=86_400 * 7, group="More"),
        Field("retry_delay_s", "Wait before trying again (s)", "number", default="60", least=0,
              most=86_400, help="Twice as long after each attempt.", group="More"),
        Field("max_duration_s", "A backup may take (s)", "number", default=str(14 * 86_400),
              least=1, most=10**9, help="Two weeks unless you say otherwise.", group="More"),
        Field("numeric_ids", "Store owners by number only", "checkbox", default=False,
              group="More"),
        Field("atime", "Store access times", "checkbox", default=False, group="More"),
        Field("sparse", "Look for holes in files", "checkbox", default=False, group="More"),
        Field("comment", "Comment", group="More"),
        Field("before_command", "Command before the backup", group="Commands on the client",
              placeholder="pg_dumpall > /var/backups/all.sql",
              help="A shell command line, run as the user that is logged in."),
        Field("before_failure", "When it fails", "choice", default="fail",
              choices=(("fail", "fail the job"), ("warn", "go on with a warning")),
              group="Commands on the client"),
        Field("after_command", "Command after the backup", group="Commands on the client",
              help="Runs whatever became of the backup; $BORGCUBE_STATE says it: done, warning,"
              " failed or cancelled."),
        Field("command_timeout_s", "A command may take (s)", "number", default="3600", least=1,
              most=604_800, group="Commands on the client"),
    ]  # fmt: skip


def repository_fields(request: Any) -> list[Field]:
    """Return the fields of a new repository."""
    return [
        Field("name", "Name", required=True, placeholder="main"),
        Field("path", "Directory on this server", required=True,
              placeholder="/srv/backup/main", help="It is made if it does not exist."),
        Field("encryption", "Encryption", "choice", default="auto", choices=(
            ("auto", "measure here and take the faster one (recommended)"),
            ("repokey", "repokey: AES-256 and HMAC-SHA256"),
            ("repokey-blake2", "repokey-blake2: AES-256 and BLAKE2b"),
        ), help="The key is in the repository, sealed with a passphrase."),
        floor_field(),
        Field("passphrase", "Passphrase", "password", autocomplete="new-password",
              help="Leave it empty to have a strong one made. You can see it afterwards."),
    ]  # fmt: skip


def import_fields(request: Any) -> list[Field]:
    """Return the fields for a repository that exists."""
    return [
        Field("name", "Name", required=True, placeholder="old"),
        Field("path", "Directory on this server", required=True, placeholder="/srv/borg/old"),
        Field("passphrase", "Passphrase", "password", required=True),
    ]  # fmt: skip


def restore_fields(request: Any, archive: Any) -> list[Field]:
    """Return the fields of a restore. Owners restore to their own clients only."""
    clients = [str(r.name) for r in queries.by_name(request, request.db.clients)]
    targets = [(f"client:{name}", f"the client {name}") for name in clients]
    if not request.me.limited:
        targets.append(("server", "a directory of this server"))
    first = f"client:{archive.client}"
    if not any(value == first for value, _ in targets):
        first = targets[0][0] if targets else ""
    fields = [
        Field("paths", "What to restore", "lines", placeholder="etc/hosts",
              help="One path a line, without a leading slash, as in the archive. Leave it"
              " empty for everything."),
        Field("target", "Restore to", "choice", default=first, choices=targets, required=True),
        Field("directory", "Directory there", required=True, placeholder="/tmp/restored",
              help="An absolute path. It is made if needed; paths are restored below it, and"
              " files of the same name there are replaced."),
    ]  # fmt: skip
    if not request.me.limited:
        fields.append(Field(
            "as_root", "Keep owners, set-user-ID bits and devices", "checkbox", default=False,
            group="More", help="Only for a restore to this server, and only if you trust the"
            " client this came from.",
        ))  # fmt: skip
    return fields


def user_fields(request: Any) -> list[Field]:
    """Return the fields of a new user."""
    clients = [(str(r.name), str(r.name)) for r in queries.by_name(request, request.db.clients)]
    fields = [
        Field("name", "Name", required=True),
        Field("role", "Role", "choice", default=Role.VIEWER,
              choices=[(role.value, f"{role.value}: {text}") for role, text in EXPLAINED.items()]),
    ]  # fmt: skip
    if clients:
        fields.append(Field("clients", "Clients of an owner", "checkboxes", default=(),
                            choices=clients, help="Only for the role owner."))  # fmt: skip
    return fields


def token_fields() -> list[Field]:
    """Return the fields of a new API token."""
    return [
        Field("name", "Name", required=True, placeholder="monitoring"),
        Field("scope", "What it may do", "checkboxes", default=(Permission.VIEW.value,),
              choices=[(p.value, p.value) for p in Permission],
              help="Never more than you may. Choose nothing for all that you may."),
        Field("days", "Good for (days)", "number", default="365", least=1, most=3650),
    ]  # fmt: skip
