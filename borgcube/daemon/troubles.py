"""Failures that will repeat: kept from the job that failed until the thing was seen to work.

One for each repository and each client, as a setting of the store. :func:`note` is called in the
transaction that ends a job, :func:`opened` when a repository's vault has opened it;
``borgcube doctor`` shows what is left. Which causes are lasting is said here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

from borgcube.core import events, lifecycle
from borgcube.core.errors import FailureCause
from borgcube.core.model import Job
from borgcube.core.store import Root

PREFIX = "trouble:"
MAX_SHOWN = 100
# What no vault that opens its repository has any more.
OPENING = frozenset({
    "repository-missing", "repository-locked", "repository-unusable", "wrong-passphrase",
    "vault-failed", "vault-timeout", "vault-hung",
})  # fmt: skip
# What only shows when something is written: it is over when that went well.
WRITING = frozenset({
    "repository-write-failed", "repository-read-only", "repository-storage-failed",
    "home-write-failed",
})  # fmt: skip
CLIENT = frozenset({
    "borg-missing", "borg-version", "borg-not-deployable", "seed-failed", "login-output",
    "login-refused", "host-key-changed", "host-key-unknown",
})  # fmt: skip
ENDED_WELL = (lifecycle.DONE, lifecycle.WARNING)


def note(
    root: Root, job: Job, *, state: str, cause: FailureCause | None, changed: bool = False
) -> None:
    """Keep what a job failed of, or forget what it showed to be over. ``changed`` tells that
    it added archives to its repository, or took some out."""
    if job.repository:
        key = f"{PREFIX}repository:{job.repository}"
        if state == lifecycle.FAILED and cause and cause.kind in OPENING | WRITING:
            _keep(root, key, job, cause)
        elif state in ENDED_WELL:
            kept = root.settings.get(key)
            if kept and (kept["kind"] not in WRITING or changed or kept["job_type"] == job.type):
                del root.settings[key]
    if job.client:
        key = f"{PREFIX}client:{job.client}"
        if state == lifecycle.FAILED and cause and cause.kind in CLIENT:
            _keep(root, key, job, cause)
        elif state in ENDED_WELL and key in root.settings:
            del root.settings[key]


def opened(root: Root, repository: str) -> None:
    """Forget why a repository could not be opened: it was."""
    key = f"{PREFIX}repository:{repository}"
    kept = root.settings.get(key)
    if kept and kept["kind"] in OPENING:
        del root.settings[key]


def _keep(root: Root, key: str, job: Job, cause: FailureCause) -> None:
    root.settings[key] = {
        "kind": cause.kind, "message": cause.message, "next_step": cause.next_step,
        "job": job.id, "job_type": job.type, "at": events.now(),
    }  # fmt: skip


def findings(
    root: Root, *, problems: Mapping[str, FailureCause] | None = None,
    said: Collection[str] = (),
) -> list[dict[str, str]]:  # fmt: skip
    """Return what ``doctor`` says of them. ``problems`` are those of vaults that no job told
    of, by repository; of the repositories in ``said`` something is said already."""
    found, named = [], set(said)
    for key, kept in islice(root.settings.items(min=PREFIX, max=PREFIX + "\x7f"), MAX_SHOWN):
        _, what, name = key.split(":", 2)
        table = root.repositories if what == "repository" else root.clients
        if table.find("name", name) is None or (what == "repository" and name in named):
            continue
        if what == "repository":
            named.add(name)
        found.append({
            "level": "error", "about": "failure", "next_step": kept["next_step"],
            "message": f"{what.capitalize()} {name}: {kept['message']} So job {kept['job']} ended;"
            " it was not seen to work since.",
        })  # fmt: skip
    for name, cause in sorted((problems or {}).items()):
        if name not in named and root.repositories.find("name", name) is not None:
            found.append({
                "level": "error", "about": "failure", "next_step": cause.next_step,
                "message": f"Repository {name}: {cause.message}",
            })  # fmt: skip
    return found
