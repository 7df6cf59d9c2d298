"""From a queued job to the JobOrder its worker gets: plain lookups in the store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from borgcube.core import rereading
from borgcube.core.errors import NotFound
from borgcube.core.jobs import JobOrder
from borgcube.core.model import Client, Job, Plan, Repository
from borgcube.core.store import Root
from borgcube.core.transports import ClientAddress
from borgcube.daemon.pruning import PRUNE, prepare

PLAN_OPTIONS = (
    "paths", "excludes", "patterns", "exclude_caches", "exclude_if_present",
    "one_file_system", "compression", "upload_ratelimit_kib", "numeric_ids", "atime",
    "sparse", "comment", "files_cache", "idle_timeout_s",
    "max_duration_s", "before_command", "before_failure", "after_command",
    "command_timeout_s",
)  # fmt: skip
SERVER_NAME = "this server"


def find(table: Any, name: str, *, what: str) -> Any:
    """Return the record of that name; raises NotFound."""
    record = table.find("name", name)
    if record is None:
        raise NotFound(f"There is no {what} {name!r}.", next_step=f"See: borgcube {what} list")
    return record


def address_of(client: Client) -> ClientAddress:
    """Return where and as whom to log in to a client."""
    return ClientAddress(
        name=client.name, transport=client.transport, host=client.host, port=client.port,
        user=client.user, identity=client.identity, options=dict(client.options),
        host_keys=tuple(client.host_keys),
    )  # fmt: skip


def archive_name(root: Root, plan: str) -> str:
    """Return a new archive name: the plan and the time in UTC, unique in the store."""
    base = f"{plan}-{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    name, count = base, 1
    while root.archives.find("name", name) is not None:
        count += 1
        name = f"{base}.{count}"
    return name


def limits_of(root: Root, client: Client) -> dict[str, Any]:
    """Return a client's limits for one backup; ``total_left`` is what its archives leave."""
    left = None
    if client.max_total_bytes:
        used = sum(
            int(archive.stats.get("charged_size", archive.stats.get("new_size", 0)))
            for archive in root.archives.oldest("client", client.name)
        )
        left = max(0, client.max_total_bytes - used)
    return {
        "job_bytes": client.max_job_bytes, "total_bytes": client.max_total_bytes,
        "total_left": left, "files": client.max_files, "duration_s": client.max_duration_s,
    }  # fmt: skip


def backup_parameters(
    root: Root, plan: Plan, client: Client, *, reread: bool = False
) -> dict[str, Any]:
    """Return the parameters of a backup order; with ``reread``, of one that reads all files."""
    options = {name: plan.as_data()[name] for name in PLAN_OPTIONS}
    if reread:
        options |= {"files_cache": "disabled", **rereading.parameters(reread=True)}
    newest = root.archives.newest(1, plan=plan.name)
    return {
        **options,
        # Which exclusions matched nothing, as the engine said of the last archive.
        "exclusions": newest[0].stats.get("exclusions") if newest else None,
        "plan": plan.name,
        "archive": archive_name(root, plan.name),
        "domain": client.domain or f"client:{client.name}",
        "own_domain": f"client:{client.name}",
        "borg": client.borg,
        "limits": limits_of(root, client),
    }


def build_order(root: Root, job: Job, *, vault_socket: str = "") -> JobOrder:
    """Build the order of a job; raises NotFound when what it refers to is gone."""
    address: ClientAddress | None = None
    parameters = dict(job.parameters)
    if job.type == PRUNE:
        parameters = prepare(root, job)
    elif parameters.get("server_side"):
        address = ClientAddress(name=SERVER_NAME, transport="local")
    elif job.client:
        client = find(root.clients, job.client, what="client")
        address = address_of(client)
        parameters.setdefault("borg", client.borg)
        if job.plan and "archive" not in parameters:
            plan = find(root.plans, job.plan, what="plan")
            parameters = backup_parameters(root, plan, client, reread=rereading.is_reread(job))
            if job.type != "backup":
                del parameters["archive"]  # a dry run makes none
    repository: dict[str, Any] = {}
    if job.repository:
        found: Repository = find(root.repositories, job.repository, what="repository")
        repository = {"name": found.name, "path": found.path, "engine": found.engine,
                      "id": found.repository_id, "record": found.id}  # fmt: skip
    return JobOrder(
        job_id=job.id, type=job.type, client=address, repository=repository,
        vault_socket=vault_socket, parameters=parameters,
        server_id=str(root.settings["server_id"]),
    )  # fmt: skip
