"""The console's built-in pages, brought through the same hooks as anybody's.

What imports the web framework is imported only when the chassis includes the pages.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from borgcube.core.access import Permission
from borgcube.core.hookspecs import hookimpl
from borgcube.core.texts import _
from borgcube.core.web import Card, Page, Tab
from borgcube.plugins.console import resources

HERE = "borgcube.plugins.console"


def _include(*modules: str) -> Any:
    def include(config: Any) -> None:
        for module in modules:
            config.include(f"{HERE}.{module}")

    return include


def _notifications(*args: Any, **values: Any) -> Any:
    from borgcube.plugins.console.notifications import Notifications

    return Notifications(*args, **values)


def _drawn(module: str, name: str) -> Any:
    """Return a function of a module that imports the web framework when it is called."""

    def draw(*given: Any) -> Any:
        return getattr(import_module(f"{HERE}.{module}"), name)(*given)

    return draw


def _schedules(*args: Any, **values: Any) -> Any:
    from borgcube.plugins.console.schedules import Schedules

    return Schedules(*args, **values)


@hookimpl
def register_pages() -> list[Page]:
    """Offer the pages of the navigation."""
    made = resources
    return [
        Page("dashboard", _("Dashboard"), "home", made.Collection, _include("dashboard"),
             hidden=True),
        Page("clients", _("Clients"), "client", made.Clients,
             _include("clients", "editing", "removing"), order=10),
        Page("plans", _("Plans"), "plan", made.Plans, _include("plans"), order=20),
        Page("jobs", _("Jobs"), "job", made.Jobs, _include("jobs"), order=30),
        Page("archives", _("Archives"), "archive", made.Archives,
             _include("archives", "files"), order=40),
        Page("drills", _("Restore drills"), "restore", made.Drills, _include("proof"), order=45),
        Page("repositories", _("Repositories"), "repository", made.Repositories,
             _include("repositories"), Permission.VIEW_SERVER, order=50),
        Page("policies", _("Retention"), "clock", made.Policies, _include("retention"),
             Permission.VIEW_SERVER, order=60),
        Page("schedules", _("Schedules"), "clock", _schedules,
             _include("schedules", "tasks", "slots", "triggers"), Permission.VIEW_SERVER,
             order=25),
        Page("notifications", _("Notifications"), "notify", _notifications,
             _include("notifications", "notify_editing"), Permission.VIEW_SERVER,
             section=_("Server"), order=5),
        Page("events", _("Events"), "event", made.Collection, _include("server"),
             Permission.VIEW_SERVER, section=_("Server"), order=10),
        Page("plugins", _("Plugins"), "plugin", made.Collection, _include("nothing"),
             Permission.VIEW_SERVER, section=_("Server"), order=20),
        Page("about", _("About"), "about", made.Collection, _include("nothing"),
             Permission.VIEW_SERVER, section=_("Server"), order=30),
        Page("users", _("Users"), "user", made.Users, _include("users"),
             Permission.ADMINISTER, section=_("Access"), order=10),
        Page("audit", _("Audit trail"), "audit", made.Collection, _include("nothing"),
             Permission.ADMINISTER, section=_("Access"), order=20),
        Page("account", _("Your account"), "key", made.Collection, _include("account"),
             section=_("Access"), order=30),
    ]  # fmt: skip


@hookimpl
def register_cards() -> list[Card]:
    """Offer the dashboard's cards."""
    where = f"{HERE}:templates"
    return [
        Card("running", _("Running now"), f"{where}/card_running.jinja2",
             _drawn("overview", "running_card"), order=10, wide=True,
             events=("job.queued", "job.started", "job.finished", "job.lost",
                     "job.cancel_requested")),
        Card("problems", _("What needs you"), f"{where}/card_problems.jinja2",
             _drawn("overview", "problems_card"), order=20, wide=True,
             events=("job.finished", "job.lost")),
        Card("attention", _("Somebody should look"), f"{where}/card_attention.jinja2",
             _drawn("proof", "attention_card"), order=15, wide=True,
             events=("archive.suspicious", "plan.released", "check.*", "plan.removed")),
        Card("plans", _("Plans"), f"{where}/card_plans.jinja2",
             _drawn("overview", "plans_card"), order=30, wide=True,
             events=("job.*", "archive.*", "plan.*")),
        Card("storage", _("Storage"), f"{where}/card_storage.jinja2",
             _drawn("overview", "storage_card"), Permission.VIEW_SERVER, order=40,
             events=("archive.*", "repository.*")),
        Card("recent", _("Recent jobs"), f"{where}/card_recent.jinja2",
             _drawn("overview", "recent_card"), order=50,
             events=("job.queued", "job.started", "job.finished", "job.lost")),
    ]  # fmt: skip


@hookimpl
def register_tabs() -> list[Tab]:
    """Offer the built-in sections of a record's page."""
    where = f"{HERE}:templates"
    return [
        Tab("dry-run", _("What a backup would take"), "job", f"{where}/tab_listing.jinja2",
            _drawn("listings", "dry_run_tab"), order=10),
        Tab("retention", _("Retention"), "plan", f"{where}/tab_retention.jinja2",
            _drawn("retention", "plan_tab"), order=20),
        Tab("keeping", _("Keeping"), "archive", f"{where}/tab_keeping.jinja2",
            _drawn("retention", "archive_tab"), order=20),
        Tab("adopt", _("Archives without a plan"), "repository", f"{where}/tab_adopt.jinja2",
            _drawn("retention", "repository_tab"), Permission.CONFIGURE, order=20),
        Tab("sizes", _("Sizes and deduplication"), "repository", f"{where}/tab_sizes.jinja2",
            _drawn("sizes", "sizes_tab"), Permission.VIEW_SERVER, order=5),
        Tab("checks", _("Checks"), "repository", f"{where}/tab_checks.jinja2",
            _drawn("proof", "checks_tab"), Permission.VIEW_SERVER, order=10),
        Tab("drills", _("Restore drills"), "plan", f"{where}/tab_drills.jinja2",
            _drawn("proof", "drills_tab"), order=30),
        Tab("triggers", _("Triggers"), "plan", f"{where}/tab_triggers.jinja2",
            _drawn("triggers", "plan_tab"), Permission.VIEW_SERVER, order=40),
    ]  # fmt: skip
