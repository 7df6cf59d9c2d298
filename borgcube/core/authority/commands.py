"""What each command of the control socket needs, and what each of its fields names.

The one list that every door goes by. A field that takes text, a list or an object either
names something (a :class:`Reference`), or is listed as plain, or is plain wherever it occurs
(:data:`PLAIN`); ``tests/unit/core/test_authority.py`` fails for one that is neither, and for a
command that is not here. Whatever is named is asked about, in the request as in the stored
record that it names: ``judging.py`` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from borgcube.core.access import Permission
from borgcube.core.authority import besides
from borgcube.core.authority.naming import Kind
from borgcube.core.store import Root

_P = Permission
More = Callable[[Root, Mapping[str, Any]], Permission | None]


@dataclass(frozen=True)
class Reference:
    """A field that names something. ``needs`` is the permission on it, None the command's.

    ``seen`` means that it is only used: to see it is enough. ``own`` means that its user may
    when logged in, ``by_token`` that a token of theirs may too. A field within an object is
    ``object.field``.
    """

    kind: Kind
    needs: Permission | None = None
    seen: bool = False
    own: bool = False
    by_token: bool = False


@dataclass(frozen=True)
class Command:
    """``needs`` is None for what strangers may ask: it brings a secret of its own.

    ``whole`` commands are about the server, whatever else they name: nobody who sees only
    some clients may give them. ``person`` ones are for a login, not a token. ``more`` says
    of a request which permission it needs besides, on the same things. ``content`` shows what
    is in files, not only that they are there.
    """

    needs: Permission | None
    references: Mapping[str, Reference] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    whole: bool = False
    person: bool = False
    content: bool = False
    more: More | None = None

    @property
    def looks(self) -> bool:
        """Whether it changes nothing and shows no content of files."""
        return self.needs in (_P.VIEW, _P.VIEW_SERVER) and not self.content


def _of(
    needs: Permission | None, /, *, plain: str = "", whole: bool = False, person: bool = False,
    content: bool = False, more: More | None = None,
    within: Mapping[str, Reference] | None = None, **references: Reference,
) -> Command:  # fmt: skip
    return Command(
        needs, {**references, **(within or {})}, frozenset(plain.split()), whole, person, content,
        more,
    )  # fmt: skip


# Fields that name nothing that is there, in whatever command they occur.
PLAIN = frozenset({
    "address", "after_command", "agent", "atime", "before_command", "before_failure",
    "blackouts", "borg", "by", "canary", "catch_up", "code", "comment", "compact",
    "compression", "confirm", "count", "days", "digest", "digest_at", "digest_day",
    "encryption", "events", "exclude_if_present", "excludes", "files_cache", "find", "form",
    "host", "key", "kinds", "lines", "passphrase", "password", "paths", "patterns", "period",
    "quiet_from", "quiet_lets", "quiet_until", "reason", "role", "scope", "severity", "spec",
    "state", "until", "version", "windows", "within", "zone",
})  # fmt: skip

_R = Reference
CLIENT, PLAN, ARCHIVE, JOB = _R(Kind.CLIENT), _R(Kind.PLAN), _R(Kind.ARCHIVE), _R(Kind.JOB)
ARCHIVE_ID, DRILL = _R(Kind.ARCHIVE_ID), _R(Kind.DRILL)
REPOSITORY, POLICY, SCHEDULE = _R(Kind.REPOSITORY), _R(Kind.POLICY), _R(Kind.SCHEDULE)
TASK, TRIGGER, CHANNEL, RULE = _R(Kind.TASK), _R(Kind.TRIGGER), _R(Kind.CHANNEL), _R(Kind.RULE)
INCIDENT, DELIVERY, USER = _R(Kind.INCIDENT), _R(Kind.DELIVERY), _R(Kind.USER)
SEEN_REPOSITORY = _R(Kind.REPOSITORY, seen=True)
SEEN_SCHEDULE, SEEN_POLICY = _R(Kind.SCHEDULE, seen=True), _R(Kind.POLICY, seen=True)
SEEN_CLIENT, SEEN_PLAN = _R(Kind.CLIENT, seen=True), _R(Kind.PLAN, seen=True)
MYSELF, SEEN_USER = _R(Kind.USER, own=True), _R(Kind.USER, seen=True)
MINE, MY_SESSION, MY_TOKEN = (
    _R(kind, own=True, by_token=True) for kind in (Kind.USER, Kind.SESSION, Kind.TOKEN)
)
_REACHED = {
    "transport": _R(Kind.TRANSPORT), "options": _R(Kind.OPTIONS), "domain": _R(Kind.DOMAIN),
    "network": _R(Kind.NETWORK),
}  # fmt: skip
_LISTED = "after"
_PLACE = _R(Kind.PLACE)

COMMANDS: Mapping[str, Command] = {
    # Clients
    "client.add": _of(_P.CONFIGURE, plain="name user", identity=_R(Kind.KEY), within=_REACHED),
    "client.enrol": _of(_P.CONFIGURE, plain="name user", within=_REACHED),
    "client.set": _of(_P.CONFIGURE, plain="user", name=CLIENT, identity=_R(Kind.KEY),
                      within=_REACHED),
    "client.remove": _of(_P.CONFIGURE, name=CLIENT),
    "client.list": _of(_P.VIEW_SERVER, plain=_LISTED),
    "client.show": _of(_P.VIEW, name=CLIENT),
    "client.test": _of(_P.CONFIGURE, name=CLIENT),
    "client.diagnose": _of(_P.CONFIGURE, name=CLIENT),
    "client.host_keys": _of(_P.CONFIGURE, name=CLIENT),
    "client.trust": _of(_P.CONFIGURE, name=CLIENT),
    "client.enrolment": _of(_P.CONFIGURE, name=CLIENT),
    # Plans
    "plan.add": _of(_P.CONFIGURE, plain="name", whole=True, client=CLIENT, repository=REPOSITORY,
                    schedule=SEEN_SCHEDULE),
    "plan.set": _of(_P.CONFIGURE, name=PLAN, client=CLIENT, repository=REPOSITORY,
                    schedule=SEEN_SCHEDULE),
    "plan.remove": _of(_P.CONFIGURE, name=PLAN),
    "plan.list": _of(_P.VIEW_SERVER, plain=_LISTED),
    "plan.show": _of(_P.VIEW, name=PLAN),
    "plan.dry_run": _of(_P.OPERATE, more=besides.unsaved, plan=PLAN, within={
        "options.client": CLIENT, "options.repository": SEEN_REPOSITORY,
        "options.schedule": SEEN_SCHEDULE,
    }),
    "plan.release": _of(_P.DELETE, plan=PLAN),
    "backup.start": _of(_P.OPERATE, plan=PLAN),
    # Jobs
    "job.start": _of(_P.ADMINISTER, plain="type parameters", whole=True, client=CLIENT,
                     repository=REPOSITORY),
    "job.list": _of(_P.VIEW_SERVER, plain="type after", client=SEEN_CLIENT, plan=SEEN_PLAN,
                    repository=SEEN_REPOSITORY),
    "job.show": _of(_P.VIEW, id=JOB),
    "job.log": _of(_P.VIEW, id=JOB),
    "job.search": _of(_P.VIEW, id=JOB),
    "job.listing": _of(_P.VIEW, plain="kind", content=True, id=JOB),
    "job.cancel": _of(_P.OPERATE, id=JOB),
    # Archives
    "restore.start": _of(_P.RESTORE, archive=ARCHIVE, to_dir=_R(Kind.DIRECTORY),
                         unfenced=_R(Kind.UNFENCED), within={
        "to_client.client": CLIENT, "to_client.directory": _R(Kind.DIRECTORY),
    }),
    "archive.list": _of(_P.VIEW_SERVER, plain=_LISTED, client=SEEN_CLIENT, plan=SEEN_PLAN,
                        repository=SEEN_REPOSITORY),
    "archive.show": _of(_P.VIEW, name=ARCHIVE),
    "archive.browse": _of(_P.VIEW, content=True, id=ARCHIVE_ID, repository=SEEN_REPOSITORY),
    "archive.download": _of(_P.RESTORE, content=True, id=ARCHIVE_ID, repository=SEEN_REPOSITORY),
    "archive.read": _of(_P.RESTORE, content=True, id=ARCHIVE_ID, repository=SEEN_REPOSITORY),
    "archive.delete": _of(_P.DELETE, names=ARCHIVE),
    "archive.hide": _of(_P.DELETE, names=ARCHIVE),
    "archive.undelete": _of(_P.CONFIGURE, name=ARCHIVE),
    "archive.mend": _of(_P.DELETE, name=ARCHIVE),
    "archive.pin": _of(_P.CONFIGURE, name=ARCHIVE),
    "archive.unpin": _of(_P.DELETE, name=ARCHIVE),
    "archive.map": _of(_P.CONFIGURE, plain="pattern", whole=True, more=besides.mapping,
                       repository=REPOSITORY, client=CLIENT, plan=PLAN),
    # Repositories
    "repository.create": _of(_P.CONFIGURE, plain="name engine", path=_PLACE),
    "repository.import": _of(_P.CONFIGURE, plain="name engine", path=_PLACE),
    "repository.set": _of(_P.CONFIGURE, name=REPOSITORY),
    "repository.remove": _of(_P.DELETE, name=REPOSITORY),
    "repository.list": _of(_P.VIEW_SERVER, plain=_LISTED),
    "repository.show": _of(_P.VIEW_SERVER, name=REPOSITORY),
    "repository.sizes": _of(_P.VIEW_SERVER, name=REPOSITORY),
    "repository.measure": _of(_P.CONFIGURE, plain="engine"),
    "repository.passphrase": _of(_P.REVEAL, name=REPOSITORY),
    "compact.start": _of(_P.OPERATE, repository=REPOSITORY),
    "check.start": _of(_P.CONFIGURE, plain="kind", repository=REPOSITORY),
    "check.set": _of(_P.CONFIGURE, repository=REPOSITORY),
    "check.show": _of(_P.VIEW_SERVER, repository=REPOSITORY),
    "drill.start": _of(_P.OPERATE, plan=PLAN, repository=REPOSITORY, archive=ARCHIVE),
    "drill.set": _of(_P.CONFIGURE, plan=PLAN),
    "drill.list": _of(_P.VIEW_SERVER, plan=SEEN_PLAN, repository=SEEN_REPOSITORY),
    "drill.show": _of(_P.VIEW, id=DRILL),
    "drill.report": _of(_P.VIEW, id=DRILL),
    # Retention
    "retention.add": _of(_P.CONFIGURE, plain="name", more=besides.added_policy),
    "retention.set": _of(_P.CONFIGURE, more=besides.changed_policy, name=POLICY),
    "retention.remove": _of(_P.CONFIGURE, name=POLICY),
    "retention.list": _of(_P.VIEW_SERVER),
    "retention.show": _of(_P.VIEW_SERVER, name=POLICY),
    "retention.attach": _of(_P.CONFIGURE, more=besides.attached_policy, plan=PLAN,
                            policy=SEEN_POLICY),
    "retention.preview": _of(_P.VIEW, plan=PLAN, policy=SEEN_POLICY),
    "prune.start": _of(_P.OPERATE, more=besides.prune, plan=PLAN, repository=REPOSITORY),
    # Time
    "schedule.add": _of(_P.CONFIGURE, plain="name kind"),
    "schedule.set": _of(_P.CONFIGURE, plain="kind", name=SCHEDULE),
    "schedule.remove": _of(_P.CONFIGURE, name=SCHEDULE),
    "schedule.list": _of(_P.VIEW_SERVER),
    "schedule.show": _of(_P.VIEW_SERVER, name=SCHEDULE),
    "schedule.preview": _of(_P.VIEW, plain="kind", name=SEEN_SCHEDULE, plan=PLAN),
    "timetable.list": _of(_P.VIEW, plans=PLAN),
    "timetable.show": _of(_P.VIEW, plan=PLAN),
    "task.add": _of(_P.DELETE, plain="name type parameters", whole=True, more=besides.task,
                    schedule=SEEN_SCHEDULE, repository=REPOSITORY, client=CLIENT, plan=PLAN),
    "task.set": _of(_P.DELETE, plain="parameters", whole=True, more=besides.task,
                    name=TASK, schedule=SEEN_SCHEDULE, repository=REPOSITORY, client=CLIENT,
                    plan=PLAN),
    "task.remove": _of(_P.DELETE, name=TASK),
    "task.run": _of(_P.DELETE, whole=True, more=besides.task, name=TASK),
    "task.list": _of(_P.VIEW_SERVER),
    "task.show": _of(_P.VIEW_SERVER, name=TASK),
    "pause.set": _of(_P.OPERATE, target=_R(Kind.PAUSED)),
    "pause.end": _of(_P.OPERATE, target=_R(Kind.PAUSED)),
    "pause.list": _of(_P.VIEW_SERVER),
    "slots.list": _of(_P.VIEW_SERVER),
    "slots.set": _of(_P.CONFIGURE, repository=REPOSITORY, network=_R(Kind.NETWORK)),
    "trigger.add": _of(_P.CONFIGURE, plain="name", whole=True, plan=PLAN),
    "trigger.remove": _of(_P.CONFIGURE, name=TRIGGER),
    "trigger.list": _of(_P.VIEW_SERVER),
    "trigger.fire": _of(None, plain="token"),
    # Notices
    "notifier.list": _of(_P.VIEW_SERVER),
    "channel.add": _of(_P.ADMINISTER, plain="name notifier options"),
    "channel.set": _of(_P.ADMINISTER, plain="options", name=CHANNEL),
    "channel.remove": _of(_P.ADMINISTER, name=CHANNEL),
    "channel.list": _of(_P.ADMINISTER),
    "channel.show": _of(_P.ADMINISTER, name=CHANNEL),
    "channel.test": _of(_P.ADMINISTER, name=CHANNEL),
    "rule.add": _of(_P.ADMINISTER, plain="name", whole=True, channel=CHANNEL,
                    clients=SEEN_CLIENT, plans=SEEN_PLAN, repositories=SEEN_REPOSITORY),
    "rule.set": _of(_P.ADMINISTER, whole=True, name=RULE, channel=CHANNEL, clients=SEEN_CLIENT,
                    plans=SEEN_PLAN, repositories=SEEN_REPOSITORY),
    "rule.remove": _of(_P.ADMINISTER, name=RULE),
    "rule.list": _of(_P.ADMINISTER),
    "rule.show": _of(_P.ADMINISTER, name=RULE),
    "incident.list": _of(_P.VIEW_SERVER),
    "incident.show": _of(_P.VIEW_SERVER, id=INCIDENT),
    "incident.acknowledge": _of(_P.OPERATE, id=INCIDENT, user=SEEN_USER),
    "incident.close": _of(_P.OPERATE, id=INCIDENT, user=SEEN_USER),
    "delivery.list": _of(_P.VIEW_SERVER, channel=_R(Kind.CHANNEL, seen=True)),
    "delivery.show": _of(_P.VIEW_SERVER, id=DELIVERY),
    "delivery.retry": _of(_P.ADMINISTER, id=DELIVERY),
    "digest.show": _of(_P.ADMINISTER, rule=RULE),
    # Accounts
    "user.add": _of(_P.ADMINISTER, plain="name", whole=True, clients=SEEN_CLIENT),
    "user.change": _of(_P.ADMINISTER, whole=True, name=USER, clients=SEEN_CLIENT),
    "user.list": _of(_P.ADMINISTER),
    "user.password": _of(_P.ADMINISTER, name=MYSELF, keep_session=MY_SESSION),
    "session.confirm": _of(_P.ADMINISTER, person=True, user=MINE, id=MY_SESSION),
    "user.disable": _of(_P.ADMINISTER, name=USER),
    "user.enable": _of(_P.ADMINISTER, name=USER),
    "user.remove": _of(_P.ADMINISTER, name=USER),
    "link.make": _of(_P.ADMINISTER, plain="purpose", user=USER),
    "token.list": _of(_P.ADMINISTER, user=MINE),
    "token.add": _of(_P.ADMINISTER, plain="name", user=MYSELF, clients=SEEN_CLIENT),
    "token.remove": _of(_P.ADMINISTER, user=MINE, id=MY_TOKEN),
    "token.touch": _of(_P.ADMINISTER, id=MY_TOKEN),
    "session.touch": _of(_P.ADMINISTER, id=MY_SESSION),
    "session.end": _of(_P.ADMINISTER, user=MINE, id=MY_SESSION),
    "factor.begin": _of(_P.ADMINISTER, person=True, user=MYSELF),
    "factor.confirm": _of(_P.ADMINISTER, person=True, user=MYSELF),
    "factor.remove": _of(_P.ADMINISTER, user=MYSELF),
    "login.password": _of(None, plain="name"),
    "login.link": _of(None, plain="token"),
    "login.set_up": _of(None, plain="name token"),
    # The server
    "ping": _of(_P.VIEW),
    "bus": _of(_P.VIEW_SERVER),
    "events.since": _of(_P.VIEW_SERVER),
    "plugins.list": _of(_P.VIEW_SERVER),
    "doctor": _of(_P.VIEW_SERVER),
    "store.show": _of(_P.VIEW_SERVER),
    "store.pack": _of(_P.ADMINISTER),
    "metrics.token": _of(_P.ADMINISTER),
    "metrics.revoke": _of(_P.ADMINISTER),
}  # fmt: skip
