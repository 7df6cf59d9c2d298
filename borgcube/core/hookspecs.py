"""Every hook of BorgCube, on one page.

*Register* hooks are called once in every process that loads plugins (daemon, worker,
command line, console), outside any transaction; each returns a list. An exception, or an
instance whose name is taken, puts the plugin into quarantine. *Decide* hooks: the first
result that is not None counts; an exception refuses. *Observe* hooks: after the commit,
isolated for each plugin, may be called again for the same event, cannot veto.
"""

from __future__ import annotations

from typing import Any

import pluggy

PROJECT = "borgcube"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_job_types() -> list[Any]:
    """Register: return job types (``core.jobs.JobType``), which may bring the form
    fields of their parameters. All processes, no transaction; an exception quarantines the
    plugin."""
    return []


@hookspec
def register_transports() -> list[Any]:
    """Register: return transports (``core.transports.Transport``), which may bring the
    form fields of their options. All processes, no transaction; an exception quarantines the
    plugin."""
    return []


@hookspec
def register_engines() -> list[Any]:
    """Register: return engines (``core.engines.Engine``). All processes, no transaction;
    an exception quarantines the plugin."""
    return []


@hookspec
def register_schedules() -> list[Any]:
    """Register: return kinds of schedules (``core.schedules.ScheduleKind``). All processes, no
    transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_notifiers() -> list[Any]:
    """Register: return notifiers (``core.notifiers.Notifier``). All processes, no
    transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_executors() -> list[Any]:
    """Register: return executors, which run a worker for a job order; ``local`` is built
    in. All processes, no transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_events() -> list[Any]:
    """Register: return event classes (subclasses of ``core.events.Event``). All processes,
    no transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_evolution_steps() -> list[Any]:
    """Register: return ``core.evolution.EvolutionStep`` objects, whose IDs begin with the
    plugin's name. They run in the daemon, each in a transaction of its own; an exception
    from this hook quarantines the plugin, one from a step stops the daemon."""
    return []


@hookspec
def register_cli_commands() -> list[Any]:
    """Register: return commands (``core.commands.Command``). Called in the command line's
    process when it needs them, no transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_config_schema() -> list[Any]:
    """Register: return frozen dataclasses that describe a plugin's configuration section.
    All processes, no transaction; an exception quarantines the plugin."""
    return []


@hookspec
def register_pages() -> list[Any]:
    """Register: return pages of the console (``core.web.Page``): a place in its navigation,
    a resource, and the views on it. All processes, no transaction, so import what a page
    needs only in its ``include``; an exception quarantines the plugin."""
    return []


@hookspec
def register_cards() -> list[Any]:
    """Register: return cards for the console's dashboard (``core.web.Card``). All processes,
    no transaction; an exception quarantines the plugin, one while a card is drawn takes only
    that card away."""
    return []


@hookspec
def register_tabs() -> list[Any]:
    """Register: return tabs on a client, plan, repository, archive or job (``core.web.Tab``).
    All processes, no transaction; an exception quarantines the plugin, one while a tab is
    drawn takes only that tab away."""
    return []


@hookspec
def register_endpoints() -> list[Any]:
    """Register: return endpoints of the API (``core.api.Endpoint``). All processes, no
    transaction; an exception quarantines the plugin, one from a handler is that request's
    error only."""
    return []


@hookspec(firstresult=True)
def may_start_job(job: dict[str, Any]) -> bool | None:
    """Decide: may this queued job start now? None for no opinion, False to leave it queued.
    Called in the daemon before the job's transaction; an exception counts as False."""


@hookspec
def observe_event(event: dict[str, Any]) -> None:
    """Observe: an event's envelope as data. Called in the daemon after the commit; must be
    quick and idempotent. An exception is logged and changes nothing."""
