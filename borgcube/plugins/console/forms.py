"""The fields of the console's forms, with the words that explain them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from borgcube.core import options
from borgcube.core.access import CALLED, EXPLAINED, Permission, Role
from borgcube.core.forms import Field
from borgcube.core.texts import _
from borgcube.plugins.console import queries

MORE = _("More")
LIMITS = _("Limits")
COMMANDS = _("Commands on the client")
COMPRESSIONS = (
    ("lz4", _("lz4: very fast, saves a little")),
    ("zstd,3", _("zstd 3: fast, saves more")),
    ("zstd,8", _("zstd 8: slower, saves a little more again")),
    ("zlib,6", _("zlib 6: for very old machines")),
    ("lzma,6", _("lzma 6: slow, saves the most")),
    ("auto,zstd,3", _("auto: zstd 3 where it helps, nothing for what is compressed already")),
    ("none", _("none")),
)
PERMISSIONS = {
    Permission.VIEW: _("view: see clients, plans, jobs and archives"),
    Permission.VIEW_SERVER: _("view-server: see repositories, events and the server"),
    Permission.OPERATE: _("operate: run, run again and cancel"),
    Permission.RESTORE: _("restore: restore archives"),
    Permission.CONFIGURE: _("configure: set up clients, plans and repositories"),
    Permission.DELETE: _("delete: delete archives"),
    Permission.REVEAL: _("reveal: see passphrases"),
    Permission.ADMINISTER: _("administer: users, tokens and the audit trail"),
}
FILES_CACHE = (
    ("ctime,size", _("change time and size (safe)")),
    ("mtime,size", _("modification time and size (network file systems)")),
    ("disabled", _("read every file every time")),
)


TRANSPORTS = {"openssh": _("SSH (the system's ssh)"), "local": _("this server itself"),
              "paramiko": _("SSH without an ssh program")}  # fmt: skip


def transport_fields(request: Any) -> list[Field]:
    """Return the fields that transports bring for their options, those of each in a group of
    its own, taken only from the transport that is chosen."""
    return [
        spec for name, transport in sorted(request.plugins.transports.items())
        for spec in options.fields_of(
            transport, when=("transport", name),
            group=_("Options: %(transport)s", transport=TRANSPORTS.get(name, name)),
        )
    ]  # fmt: skip


def options_field() -> Field:
    """Return the field of the options that no other field describes."""
    return Field("options", _("Other options of the transport"), "lines", group=MORE,
                 placeholder="NAME=VALUE", help=_("One NAME=VALUE a line."))  # fmt: skip


def client_fields(request: Any) -> list[Field]:
    """Return the fields of a new client; its key is made here, so that is none of them.

    Options of the transport are for administrators, as over the API: they may name files of
    this server.
    """
    known = sorted(
        name for name, one in request.plugins.transports.items()
        if names_files(request) or not getattr(one, "runs_here", False)
    )  # fmt: skip
    first = [name for name in ("openssh", "paramiko", "local") if name in known]
    order = [*first, *(name for name in known if name not in first)]
    return [
        Field("name", _("Name"), required=True, placeholder="web1",
              help=_("How you call this machine. It cannot be changed later.")),
        Field("host", _("Address"), placeholder="web1.example.org",
              help=_("Host name or IP address, as this server reaches it. Leave it empty for"
              " this server itself.")),
        Field("user", _("Log in as"), default="root",
              help=_("root can read everything. Any user works for what that user can read.")),
        Field("port", _("Port"), "number", default="22", least=1, most=65535, group=MORE),
        Field("transport", _("How to reach it"), "choice", default=order[0] if order else "",
              choices=[(name, TRANSPORTS.get(name, name)) for name in order], group=MORE),
        Field("borg", _("borg on the client"), default="borg", group=MORE,
              help=_("The program's name or path there. Versions 1.2 to 1.4 work.")),
        Field("domain", _("Domain"), group=MORE,
              help=_("Clients of one domain may learn which chunks the others have stored, and"
              " so upload less. Leave it empty to keep this client to itself.")),
        Field("network", _("Network"), group=MORE, placeholder="branch",
              help=_("Clients of one network share its slots: how many of their jobs run at"
              " once. Any name; the page Schedules has the slots.")),
        *([options_field(), *transport_fields(request)] if names_files(request) else []),
        *limit_fields(),
    ]  # fmt: skip


def names_files(request: Any) -> bool:
    """Tell whether the user may name files of this server: keys, and what options name."""
    return bool(request.me.may(Permission.ADMINISTER))


def named(request: Any, name: str, label: str, **more: Any) -> Field:
    """Return the field for the name of a ``client`` or ``plan``: chosen from a list, or typed
    where the list would be too long."""
    known = queries.choices(request, f"{name}s")
    if known is None:
        return Field(name, label, help=_("Its exact name."), **more)
    return Field(name, label, "choice", choices=[(one, one) for one in known], **more)


def limit_fields() -> list[Field]:
    """Return the fields that limit a client; empty or 0 means no limit."""
    none = _("no limit")
    return [
        Field("max_job_bytes", _("One backup may store"), "size", default=0, placeholder=none,
              help=_("Such as 50G, counted as stored. A backup that hits a limit fails and goes"
                     " on from there when it is run again."), group=LIMITS),
        Field("max_total_bytes", _("All its archives may store"), "size", default=0,
              placeholder=none, help=_("Deleting archives makes room."), group=LIMITS),
        Field("max_files", _("Files in one archive"), "number", default=0, least=0,
              most=10**12, help=_("Directories and links count too. 0 means no limit."),
              group=LIMITS),
        Field("max_duration_s", _("A backup may take (s)"), "number", default=0, least=0,
              most=10**9, help=_("0 means no limit."), group=LIMITS),
        Field("max_sessions", _("Jobs at once"), "number", default=0, least=0, most=1000,
              help=_("Others wait in the queue. 0 means no limit."), group=LIMITS),
    ]  # fmt: skip


def _with_stored(spec: Field, value: Any) -> Field:
    """Return a choice that also offers what is stored, whatever the list says."""
    if spec.kind != "choice" or any(value == key for key, _label in spec.choices):
        return spec
    return replace(spec, choices=[*spec.choices, (str(value), str(value))])


def client_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a client that can be changed."""
    fields = [spec for spec in client_fields(request) if spec.name != "name"]
    if names_files(request):
        fields.append(Field(
            "identity", _("Private key on this server"), group=MORE,
            help=_("The path of the key file that logs in. Clients that were added here have"
                   " one of their own."),
        ))  # fmt: skip
    now = client_shown(request, data)
    return [_with_stored(spec, now.get(spec.name)) for spec in fields]


def client_shown(request: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's data as values of the edit form."""
    found, rest = dict(data), dict(data["options"])
    for name, transport in request.plugins.transports.items():
        if name == data["transport"]:
            values, rest = options.shown(transport, data["options"])
        else:
            values, _rest = options.shown(transport, {})
        found |= values
    return {**found, "options": [f"{key}={value}" for key, value in rest.items()]}


def client_meant(request: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a form's values mean; raises InvalidInput."""
    if not names_files(request):
        return dict(values)
    specs = {spec.name for spec in transport_fields(request)}
    found = {key: value for key, value in values.items() if key not in specs}
    transport = request.plugins.transports.get(values["transport"])
    meant = options.meant(transport, values, values["options"], field="options")
    return {**found, "options": meant}


def plan_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a plan that can be changed."""
    return [_with_stored(spec, data.get(spec.name))
            for spec in plan_fields(request) if spec.name != "name"]  # fmt: skip


def repository_edit_fields(request: Any, data: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a repository that can be changed."""
    return [floor_field()]


def floor_field() -> Field:
    """Return the field for the space that is left free."""
    return Field("free_floor_bytes", _("Leave free on the disk"), "size", default=1 << 30,
                 help=_("No backup begins or goes on when less than this is free. Deleting and"
                        " restoring go on."))  # fmt: skip


def plan_fields(request: Any) -> list[Field]:
    """Return the fields of a new plan."""
    repositories = request.db.repositories.named(queries.MAX_RECORDS)
    return [
        Field("name", _("Name"), required=True, placeholder="web1-etc",
              help=_("It begins the names of its archives. It cannot be changed later.")),
        named(request, "client", _("Client"), required=True),
        Field("repository", _("Into repository"), "choice", required=True,
              choices=[(name, name) for name in repositories]),
        Field("paths", _("What to back up"), "lines", required=True, placeholder="/etc\n/home",
              help=_("One path a line, as it is called on the client.")),
        Field("excludes", _("Leave out"), "lines", placeholder="*/.cache\n/home/*/Downloads",
              help=_("One pattern a line, as in borg --exclude.")),
        Field("schedule", _("When"), "choice", choices=[
            ("", _("when somebody starts it")),
            *((name, name) for name in request.db.schedules.named(queries.MAX_RECORDS)),
        ], help=_("A schedule; make one on the page Schedules.")),
        Field("compression", _("Compression"), "choice", default="zstd,3", choices=COMPRESSIONS,
              help=_("Done by the client, before anything is sent.")),
        Field("one_file_system", _("Stay on one file system"), "checkbox", default=False,
              help=_("Do not follow mounts below the paths."), group=MORE),
        Field("exclude_caches", _("Leave out directories marked as caches"), "checkbox",
              default=False, help=_("Those with a CACHEDIR.TAG file."), group=MORE),
        Field("exclude_if_present", _("Leave out directories that hold a file called"), "lines",
              placeholder=".nobackup", group=MORE),
        Field("patterns", _("Patterns"), "lines", group=MORE,
              help=_("One borg pattern a line, such as + re:keep or - sh:**/tmp.")),
        Field("upload_ratelimit_kib", _("Upload at most (KiB/s)"), "number", default="0", least=0,
              most=10_000_000, help=_("0 means no limit."), group=MORE),
        Field("files_cache", _("A file is unchanged when these are"), "choice",
              default="ctime,size", choices=FILES_CACHE, group=MORE),
        Field("retries", _("Try again"), "number", default="1", least=0, most=100, group=MORE,
              help=_("How often a job is run again that was lost or failed for the network.")),
        Field("idle_timeout_s", _("Give up after silence of (s)"), "number", default="900",
              least=1, most=86_400 * 7, group=MORE),
        Field("retry_delay_s", _("Wait before trying again (s)"), "number", default="60", least=0,
              most=86_400, help=_("Twice as long after each attempt."), group=MORE),
        Field("max_duration_s", _("A backup may take (s)"), "number", default=str(14 * 86_400),
              least=1, most=10**9, help=_("Two weeks unless you say otherwise."), group=MORE),
        Field("numeric_ids", _("Store owners by number only"), "checkbox", default=False,
              group=MORE),
        Field("atime", _("Store access times"), "checkbox", default=False, group=MORE),
        Field("sparse", _("Look for holes in files"), "checkbox", default=False, group=MORE),
        Field("comment", _("Comment"), group=MORE),
        Field("before_command", _("Command before the backup"), group=COMMANDS,
              placeholder="/usr/local/sbin/dump-databases",
              help=_("A shell command line, run on the client as the user that is logged in."
              " So only those who may set up clients can change it.")),
        Field("before_failure", _("When it fails"), "choice", default="fail",
              choices=(("fail", _("fail the job")), ("warn", _("go on with a warning"))),
              group=COMMANDS),
        Field("after_command", _("Command after the backup"), group=COMMANDS,
              help=_("Runs whatever became of the backup; $BORGCUBE_STATE says it: done, warning,"
              " failed or cancelled.")),
        Field("command_timeout_s", _("A command may take (s)"), "number", default="3600", least=1,
              most=604_800, group=COMMANDS),
    ]  # fmt: skip


def repository_fields(request: Any) -> list[Field]:
    """Return the fields of a new repository."""
    return [
        Field("name", _("Name"), required=True, placeholder="main"),
        Field("path", _("Directory on this server"), required=True,
              placeholder="/srv/backup/main", help=_("It is made if it does not exist.")),
        Field("encryption", _("Encryption"), "choice", default="auto", choices=(
            ("auto", _("the faster one here (recommended)")),
            ("repokey", _("repokey: AES-256 and HMAC-SHA256")),
            ("repokey-blake2", _("repokey-blake2: AES-256 and BLAKE2b")),
        ), help=_("The key is in the repository, sealed with a passphrase.")),
        floor_field(),
        Field("passphrase", _("Passphrase"), "password", autocomplete="new-password",
              help=_("Leave it empty to have a strong one made. You can see it afterwards.")),
    ]  # fmt: skip


def import_fields(request: Any) -> list[Field]:
    """Return the fields for a repository that exists."""
    return [
        Field("name", _("Name"), required=True, placeholder="old"),
        Field("path", _("Directory on this server"), required=True, placeholder="/srv/borg/old"),
        Field("passphrase", _("Passphrase"), "password", required=True),
    ]  # fmt: skip


def restore_fields(request: Any, archive: Any) -> list[Field]:
    """Return the fields of a restore. Owners restore to their own clients only."""
    known = queries.choices(request, "clients")
    clients = [archive.client] if known is None and archive.client else known or []
    targets = [(f"client:{name}", _("the client %(name)s", name=name)) for name in clients]
    if known is None:
        targets.append(("other", _("the client named below")))
    if names_files(request):
        targets.append(("server", _("a directory of this server")))
    first = f"client:{archive.client}"
    if not any(value == first for value, _ in targets):
        first = targets[0][0] if targets else ""
    fields = [
        Field("paths", _("What to restore"), "lines", placeholder="etc/hosts",
              help=_("One path a line, without a leading slash, as in the archive. Leave it"
              " empty for everything.")),
        Field("target", _("Restore to"), "choice", default=first, choices=targets, required=True),
        Field("directory", _("Directory there"), required=True, placeholder="/root/restored",
              help=_("An absolute path. It is made if needed; paths are restored below it, and"
              " files of the same name there are replaced.")),
    ]  # fmt: skip
    if known is None:
        fields.insert(2, Field("client", _("Name of another client"),
                               help=_("Needed only if you chose it above.")))  # fmt: skip
    fields.append(Field(
        "shared_target", _("Others may write to that directory"), "checkbox", default=False,
        group=MORE, help=_("Only for a restore to a client. Without it, a directory that others"
        " there can write to is refused. Links there are not followed in any case."),
    ))  # fmt: skip
    if names_files(request):
        fields.append(Field(
            "as_root", _("Keep owners, set-user-ID bits and devices"), "checkbox", default=False,
            group=MORE, help=_("Only for a restore to this server, and only if you trust the"
            " client this came from."),
        ))  # fmt: skip
        fields.append(Field(
            "unfenced", _("Extract without the fence"), "checkbox", default=False,
            group=MORE, help=_("Only for a restore to this server, where no fence can be built:"
            " what the client wrote could then change other files than those restored."),
        ))  # fmt: skip
    return fields


def user_fields(request: Any) -> list[Field]:
    """Return the fields of a new user."""
    clients = queries.choices(request, "clients")
    fields = [
        Field("name", _("Name"), required=True),
        Field("role", _("Role"), "choice", default=Role.VIEWER,
              choices=[(role.value, _("%(role)s: %(what)s", role=CALLED[role], what=text))
                       for role, text in EXPLAINED.items()]),
    ]  # fmt: skip
    if clients is None:
        fields.append(Field("clients", _("Clients of an owner"), "lines", default=(),
                            help=_("Only for the role owner. One name a line.")))  # fmt: skip
    elif clients:
        fields.append(Field("clients", _("Clients of an owner"), "checkboxes", default=(),
                            choices=[(name, name) for name in clients],
                            help=_("Only for the role owner.")))  # fmt: skip
    return fields


ALL = "all"


def token_scope(ticked: Sequence[str]) -> list[str]:
    """Return the scope that is meant: "all" stands for everything beside it."""
    return [ALL] if ALL in ticked else list(ticked)


def token_fields(request: Any) -> list[Field]:
    """Return the fields of a new API token."""
    clients = queries.choices(request, "clients") != []
    fields = [
        Field("name", _("Name"), required=True, placeholder="monitoring"),
        Field("scope", _("What it may do"), "checkboxes", default=(Permission.VIEW.value,),
              choices=[*((p.value, PERMISSIONS[p]) for p in Permission),
                       (ALL, _("all: all that you may, now and later"))],
              help=_("Never more than you may. With nothing ticked it can do nothing.")),
        Field("days", _("Good for (days)"), "number", default="365", least=1, most=3650),
        Field("clients", _("Only for clients"), "lines", placeholder="web1",
              help=_("One name a line. Leave it empty for all that you see.")),
    ]  # fmt: skip
    return fields if clients else fields[:-1]
