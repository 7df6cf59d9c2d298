"""Who may see and do what: every view of the console, by role, written down by hand.

A view that is not here fails ``test_permissions.py``, so a new page is thought about. The
key is the resource's class and the view's name; a page that is just a page goes by the
name of its function.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from borgcube.testing.consolerig import ConsoleRig

# The users of the test's fleet: administrator, operator, viewer, owner of the client web.
ADMIN = frozenset({"ada"})
STAFF = frozenset({"ada", "olga"})
LOOKERS = frozenset({"ada", "olga", "vera"})
RUNNERS = frozenset({"ada", "olga", "owen"})
ALL = frozenset({"ada", "olga", "vera", "owen"})
NOBODY: frozenset[str] = frozenset()
USERS = sorted(ALL)


@dataclass(frozen=True)
class View:
    """``path`` is of the client web; ``other`` is the same of a client that owen does not
    own. ``see`` may GET it, ``do`` may POST to it; None where there is no such thing.
    ``elsewhere`` names the test that has the records, where the quick fleet has none."""

    path: str
    see: frozenset[str] | None = None
    do: frozenset[str] | None = None
    other: str = ""
    elsewhere: str = ""


MATRIX = {
    # Backup
    "SiteRoot": View("/", see=ALL),
    "Clients": View("/clients", see=ALL),
    "Clients +add": View("/clients/+add", see=STAFF, do=STAFF),
    "ClientItem": View("/clients/web", see=ALL, other="/clients/mail"),
    "ClientItem test": View("/clients/web/test", do=STAFF),
    "ClientItem edit": View("/clients/web/edit", see=STAFF, do=STAFF),
    "ClientItem remove": View("/clients/web/remove", see=STAFF, do=STAFF),
    "ClientItem connect": View("/clients/web/connect", see=STAFF, do=STAFF),
    "ClientItem state": View("/clients/web/state", do=STAFF),
    "ClientItem trust": View("/clients/web/trust", do=STAFF),
    "Plans": View("/plans", see=ALL),
    "Plans +add": View("/plans/+add", see=STAFF, do=STAFF),
    "PlanItem": View("/plans/web-etc", see=ALL, other="/plans/mail-etc"),
    "PlanItem edit": View("/plans/web-etc/edit", see=STAFF, do=STAFF),
    "PlanItem remove": View("/plans/web-etc/remove", see=STAFF, do=STAFF),
    "PlanItem dry-run": View("/plans/web-etc/dry-run", do=RUNNERS, other="/plans/mail-etc/dry-run"),
    "PlanItem drill": View("/plans/web-etc/drill", do=RUNNERS, other="/plans/mail-etc/drill"),
    "PlanItem release": View("/plans/web-etc/release", do=ADMIN),
    "PlanItem retention": View(
        "/plans/web-etc/retention", see=ALL, other="/plans/mail-etc/retention"
    ),
    "PlanItem policy": View("/plans/web-etc/policy", do=STAFF),
    "PlanItem measure": View("/plans/web-etc/measure", do=RUNNERS, other="/plans/mail-etc/measure"),
    "PlanItem prune": View("/plans/web-etc/prune", do=ADMIN),
    "PlanItem backup": View("/plans/web-etc/backup", do=RUNNERS, other="/plans/mail-etc/backup"),
    "Jobs": View("/jobs", see=ALL),
    "JobItem": View("/jobs/1", see=ALL, other="/jobs/2"),
    "JobItem log": View("/jobs/1/log", see=ALL, other="/jobs/2/log"),
    "JobItem cancel": View("/jobs/1/cancel", do=RUNNERS, other="/jobs/2/cancel"),
    # What it needs depends on the job, so it asks itself: see test_pages.py, ACTIONS.
    "JobItem again": View("/jobs/1/again", do=ALL, other="/jobs/2/again"),
    "Archives": View("/archives", see=ALL),
    "ArchiveItem": View("/archives/main/{web}", see=ALL, other="/archives/main/{mail}"),
    "ArchiveItem restore": View(
        "/archives/main/{web}/restore", see=RUNNERS, do=RUNNERS,
        other="/archives/main/{mail}/restore",
    ),
    "ArchiveItem files": View(
        "/archives/main/{web}/files", see=ALL, other="/archives/main/{mail}/files"
    ),
    "ArchiveItem content": View(
        "/archives/main/{web}/content?key=etc/f001", see=RUNNERS,
        other="/archives/main/{mail}/content?key=etc/f001",
    ),
    "ArchiveItem read": View(
        "/archives/main/{web}/read", do=RUNNERS, other="/archives/main/{mail}/read"
    ),
    "ArchiveItem pin": View("/archives/main/{web}/pin", do=STAFF),
    "ArchiveItem unpin": View("/archives/main/{web}/unpin", do=ADMIN),
    "ArchiveItem undelete": View("/archives/main/{web}/undelete", do=STAFF),
    "Archives +deleted": View("/archives/+deleted", see=ALL),
    "Drills": View("/drills", see=ALL),
    "DrillItem": View("/drills/1", see=ALL, elsewhere="test_proof_pages.py"),
    "DrillItem report": View("/drills/1/report", see=ALL, elsewhere="test_proof_pages.py"),
    "ArchiveItem mend": View("/archives/main/{web}/mend", do=ADMIN),
    "ArchiveItem delete": View("/archives/main/{web}/delete", see=ADMIN, do=ADMIN),
    "Repositories": View("/repositories", see=LOOKERS),
    "Repositories +add": View("/repositories/+add", see=STAFF, do=STAFF),
    "Repositories +import": View("/repositories/+import", see=STAFF, do=STAFF),
    "RepositoryItem": View("/repositories/main", see=LOOKERS),
    "RepositoryItem edit": View("/repositories/main/edit", see=STAFF, do=STAFF),
    "RepositoryItem remove": View("/repositories/main/remove", see=ADMIN, do=ADMIN),
    "RepositoryItem check": View("/repositories/main/check", do=STAFF),
    "RepositoryItem adopt": View("/repositories/old/adopt", see=STAFF, do=STAFF),
    "Policies": View("/policies", see=LOOKERS),
    "Policies +add": View("/policies/+add", see=STAFF, do=STAFF),
    "PolicyItem": View("/policies/keep", see=LOOKERS),
    "PolicyItem edit": View("/policies/keep/edit", see=STAFF, do=STAFF),
    "PolicyItem remove": View("/policies/keep/remove", do=STAFF),
    "RepositoryItem passphrase": View("/repositories/main/passphrase", do=ADMIN),
    "PlanItem pause": View("/plans/web-etc/pause", see=RUNNERS, do=RUNNERS,
                           other="/plans/mail-etc/pause"),
    "PlanItem resume": View("/plans/web-etc/resume", do=RUNNERS, other="/plans/mail-etc/resume"),
    "Schedules": View("/schedules", see=LOOKERS),
    "Schedules +month": View("/schedules/+month", see=LOOKERS),
    "Schedules +add": View("/schedules/+add", see=STAFF, do=STAFF),
    "Schedules +pause": View("/schedules/+pause", see=STAFF, do=STAFF),
    "Schedules +resume": View("/schedules/+resume", do=STAFF),
    "ScheduleItem": View("/schedules/named/nightly", see=LOOKERS),
    "ScheduleItem edit": View("/schedules/named/nightly/edit", see=STAFF, do=STAFF),
    "ScheduleItem remove": View("/schedules/named/nightly/remove", do=STAFF),
    "Schedules +slots": View("/schedules/+slots", see=LOOKERS),
    "Schedules +limit": View("/schedules/+limit", see=STAFF, do=STAFF),
    "Triggers": View("/schedules/triggers", see=LOOKERS),
    "Triggers +add": View("/schedules/triggers/+add", see=STAFF, do=STAFF),
    "TriggerItem remove": View("/schedules/triggers/ci/remove", see=STAFF, do=STAFF),
    "Schedules +task": View("/schedules/+task", see=ADMIN, do=ADMIN),
    "TaskItem edit": View("/schedules/tasks/weekly/edit", see=ADMIN, do=ADMIN),
    "TaskItem run": View("/schedules/tasks/weekly/run", do=ADMIN),
    "TaskItem remove": View("/schedules/tasks/weekly/remove", do=ADMIN),
    # Server
    "server.events": View("/events", see=LOOKERS),
    "server.plugins": View("/plugins", see=LOOKERS),
    "server.about": View("/about", see=LOOKERS),
    "ApiPage": View("/api", see=ALL),
    # Notifications
    "Notifications": View("/notifications", see=LOOKERS),
    "Notifications log": View("/notifications/log", see=LOOKERS),
    "Notifications +channel": View("/notifications/+channel", see=ADMIN, do=ADMIN),
    "Notifications +rule": View("/notifications/+rule", see=ADMIN, do=ADMIN),
    "ChannelItem": View("/notifications/channels/desk", see=ADMIN, do=ADMIN),
    "ChannelItem test": View("/notifications/channels/desk/test", do=ADMIN),
    "ChannelItem remove": View("/notifications/channels/desk/remove", do=ADMIN),
    "RuleItem": View("/notifications/rules/all", see=ADMIN, do=ADMIN),
    "RuleItem remove": View("/notifications/rules/all/remove", do=ADMIN),
    "IncidentItem acknowledge": View("/notifications/incidents/{incident}/acknowledge", do=STAFF),
    "IncidentItem close": View("/notifications/incidents/{incident}/close", do=STAFF),
    "DeliveryItem": View("/notifications/messages/{message}", see=LOOKERS),
    "DeliveryItem retry": View("/notifications/messages/{message}/retry", do=ADMIN),
    # Access
    "server.audit": View("/audit", see=ADMIN),
    "Users": View("/users", see=ADMIN),
    "Users +add": View("/users/+add", see=ADMIN, do=ADMIN),
    "UserItem": View("/users/vera", see=ADMIN, do=ADMIN),
    "UserItem link": View("/users/vera/link", do=ADMIN),
    "UserItem disable": View("/users/vera/disable", do=ADMIN),
    "UserItem enable": View("/users/vera/enable", do=ADMIN),
    "UserItem no-code": View("/users/vera/no-code", do=ADMIN),
    "UserItem remove": View("/users/vera/remove", do=ADMIN),
    "account.account": View("/account", see=ALL),
    "account.password": View("/account/password", do=ALL),
    "account.language": View("/account/language", do=ALL),
    "account.token_add": View("/account/token", do=ALL),
    "account.token_remove": View("/account/token-remove", do=ALL),
    "account.session_end": View("/account/session-end", do=ALL),
    "account.factor": View("/account/factor", do=ALL),
    "account.factor_remove": View("/account/factor-remove", do=ALL),
    # With secrets of their own, not logins: see test_triggers.py and test_metrics.py.
    "ConsoleRoot trigger": View("/trigger", do=NOBODY, elsewhere="test_triggers.py"),
    "Metrics": View("/metrics", see=NOBODY, elsewhere="test_metrics.py"),
    # For strangers; to those who are logged in they are of no use, and of no harm.
    "ConsoleRoot login": View("/login"),
    "ConsoleRoot link": View("/link", see=ALL, do=ALL),
    "ConsoleRoot setup": View("/setup", see=ALL, do=ALL),
    "ConsoleRoot confirm": View("/confirm", see=ALL, do=ALL),
    "ConsoleRoot logout": View("/logout", do=ALL),
    "ConsoleRoot favicon.ico": View("/favicon.ico"),
}  # fmt: skip

# What stands in braces in the paths above.
RECORDS = ("web", "mail", "message", "incident")


def eventually(look: Callable[[], Any]) -> Any:
    """Return what ``look`` finds, when it finds something."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


def make_records(rig: ConsoleRig) -> dict[str, str]:
    """Make what a fleet has none of yet, so that every page shows something; return what
    fills the paths of the matrix."""
    found = {name: rig.call("archive.list", client=name)[0]["id"] for name in ("web", "mail")}
    rig.call("schedule.add", name="nightly", spec="0 3 29 2 *")
    rig.call("plan.set", name="web-etc", schedule="nightly")
    rig.call("task.add", name="weekly", type="check", schedule="nightly", repository="main")
    rig.call("plan.set", name="web-etc", schedule="nightly")
    rig.call("slots.set", repository="main", slots=2)
    rig.call("trigger.add", name="ci", plan="web-etc", days=365)
    rig.call("retention.add", name="keep", daily=7)
    rig.call("retention.attach", plan="web-etc", policy="keep")
    (rig.place / "old").mkdir()
    rig.call("repository.import", name="old", path=str(rig.place / "old"), passphrase="right")
    rig.call("channel.add", name="desk", notifier="webhook",
             options={"url": "http://127.0.0.1:9/", "secret": "s" * 20})  # fmt: skip
    rig.call("rule.add", name="all", channel="desk")
    rig.call("channel.test", name="desk")
    rig.call("plan.add", name="bad", client="web", repository="main", paths=["/x"],
             comment="cause")  # fmt: skip
    rig.ended(rig.call("backup.start", plan="bad")["job_id"])
    found["message"] = eventually(lambda: rig.call("delivery.list"))[0]["id"]
    found["incident"] = eventually(lambda: rig.call("incident.list"))[0]["id"]
    return found


def pages(records: dict[str, str]) -> list[str]:
    """Return the path of every page that an administrator sees."""
    return [view.path.format(**records) for key, view in MATRIX.items()
            if view.see is not None and not view.elsewhere and not key.startswith("ConsoleRoot")
            and not key.endswith((" log", " content"))] + ["/notifications/log"]  # fmt: skip


# The API's endpoints, alike: an owner's stop at clients of their own, where there is one.
ENDPOINTS = {
    name: who for who, names in {
        ALL: """
            archives.deleted archives.files archives.list archives.show clients.list clients.show
            drills.list drills.report drills.show events.since fleet fleet.plans jobs.list
            jobs.listing jobs.log jobs.show me me.confirm me.password me.second-factor.begin
            me.second-factor.confirm plans.list plans.retention plans.runs plans.show plans.status
            sessions.end sessions.list status tokens.add tokens.list tokens.remove
        """,
        LOOKERS: """
            checks.show deliveries.list doctor incidents.list incidents.show notifiers pauses.list
            plugins repositories.list repositories.show repositories.sizes
            repositories.space retention.list
            retention.show schedules.list schedules.preview schedules.runs schedules.show slots.list
            store.show tasks.list tasks.show triggers.list
        """,
        STAFF: """
            archives.pin archives.undelete checks.change checks.start clients.add
            clients.change clients.diagnose clients.enrol clients.enrolment clients.host-keys
            clients.remove clients.test clients.trust plans.add plans.attach plans.canary
            plans.change plans.remove plans.try repositories.adopt repositories.change
            repositories.create repositories.import retention.add retention.change retention.remove
            schedules.add schedules.change schedules.remove slots.set triggers.add triggers.remove
        """,
        RUNNERS: """
            archives.content archives.read archives.restore incidents.acknowledge incidents.close
            jobs.again jobs.cancel pauses.end pauses.set plans.backup plans.drill plans.dry-run
            plans.measure repositories.compact
        """,
        ADMIN: """
            archives.delete archives.hide archives.mend archives.unpin audit channels.add
            channels.change channels.list channels.remove channels.show channels.test
            deliveries.retry digest jobs.start metrics.revoke metrics.token plans.prune
            plans.release repositories.forget repositories.passphrase repositories.prune rules.add
            rules.change rules.list rules.remove rules.show store.pack tasks.add tasks.change
            tasks.remove tasks.run users.add users.change users.disable users.enable users.link
            users.list users.password users.remove users.second-factor.remove users.show
        """,
    }.items() for name in names.split()
}  # fmt: skip
