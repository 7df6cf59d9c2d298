"""Control methods about who is told what: notifiers, channels, rules, incidents, deliveries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from borgcube.core import letters, notices, rules
from borgcube.core.envelope import now
from borgcube.core.errors import BorgCubeError, InvalidInput, NotFound
from borgcube.core.events_notices import NotificationConfigured
from borgcube.core.model import Channel, Rule
from borgcube.core.model.names import check_name
from borgcube.core.notifiers import TEST, checked_options, secret_names
from borgcube.core.standing import rule_remarks
from borgcube.daemon import checks, digest, outbox
from borgcube.daemon.control import Later, method
from borgcube.daemon.courier import secrets_context, utc_now
from borgcube.daemon.incidents import CLOSED, OPEN, acknowledge, close
from borgcube.daemon.outbox import FAILED, QUEUED, iso

if TYPE_CHECKING:
    from borgcube.daemon.main import Daemon

MAX_LISTED = 1000


def find(table: Any, name: str, *, what: str) -> Any:
    """Return the channel or rule of that name; raises NotFound."""
    found = table.find("name", name)
    if found is None:
        raise NotFound(f"There is no {what} {name[:80]!r}.", field=what,
                       next_step=f"See: borgcube notify {what} list")  # fmt: skip
    return found


def _limited(limit: int) -> int:
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidInput(f"limit must be between 1 and {MAX_LISTED}.", field="limit")
    return limit


class NotifyMethods:
    """notifier.*, channel.*, rule.*, incident.*, delivery.*, digest.*"""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    # Notifiers and channels

    @method("notifier.list")
    def notifiers(self) -> list[dict[str, Any]]:
        """Return the notifiers with their options."""
        return [
            {"name": name, "title": one.title, "heartbeat": one.heartbeat,
             "options": [asdict(spec) for spec in one.fields()]}
            for name, one in sorted(self._daemon.registry.notifiers.items())
        ]  # fmt: skip

    def _notifier(self, name: str) -> Any:
        known = self._daemon.registry.notifiers
        if name not in known:
            raise NotFound(f"There is no notifier {name[:60]!r}.", field="notifier",
                           next_step=f"Choose one of: {', '.join(sorted(known))}.")  # fmt: skip
        return known[name]

    def _split(self, name: str, notifier: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a channel with these complete options, secrets sealed."""
        hidden = secret_names(notifier)
        secrets = {key: options[key] for key in hidden if options[key]}
        sealed = b""
        if secrets:
            sealed = self._daemon.keys.seal(json.dumps(secrets), context=secrets_context(name))
        return {"options": {k: v for k, v in options.items() if k not in hidden},
                "secrets": sealed}  # fmt: skip

    def _secrets(self, channel: Any) -> dict[str, Any]:
        if not channel.secrets:
            return {}
        text = self._daemon.keys.unseal(channel.secrets, context=secrets_context(channel.name))
        found: dict[str, Any] = json.loads(text)
        return found

    def _shown(self, channel: Any) -> dict[str, Any]:
        data: dict[str, Any] = channel.as_data()
        try:
            data["secrets_set"] = sorted(self._secrets(channel))
        except BorgCubeError:
            data["secrets_set"] = []
        return data

    @method("channel.add")
    def channel_add(
        self, *, name: str, notifier: str, options: dict[str, Any] | None = None,
        comment: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a channel; secrets among the options are sealed and never shown again."""
        check_name(name, what="channel")
        kind = self._notifier(notifier)
        complete = checked_options(kind, options or {})
        channel = Channel(
            name=name, notifier=notifier, comment=comment, created_at=now(),
            **self._split(name, kind, complete),
        )  # fmt: skip
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.channels, name, what="channel")
            root.channels.add(channel)
            root.record(NotificationConfigured(what="channel", name=name, change="added"))
            shown = self._shown(channel)
        self._daemon.alarms.courier.wake()
        return shown

    @method("channel.set")
    def channel_set(
        self, *, name: str, options: dict[str, Any] | None = None, comment: str | None = None,
        disabled: bool | None = None, version: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given; options that are left out, and empty secrets, stay.

        ``version`` is that of the settings the caller saw (``core.versions``), secrets apart;
        a channel that was changed since is left alone.
        """
        with self._daemon.store.transact() as root:
            channel = find(root.channels, name, what="channel")
            checks.check_version(channel, version, what="channel")
            values = checks.given({"options": options, "comment": comment, "disabled": disabled})
            if options is not None:
                kind = self._notifier(channel.notifier)
                hidden = secret_names(kind)
                kept = {k: v for k, v in options.items() if not (k in hidden and v == "")}
                merged = {**channel.options, **self._secrets(channel), **kept}
                known = {spec.name for spec in kind.fields()}
                old = {k: v for k, v in merged.items() if k in known or k in options}
                complete = checked_options(kind, old)
                values.update(self._split(name, kind, complete))
            changed = checks.change(root.channels, channel, values)
            if changed:
                # What was wrong may be mended: try at once.
                channel.not_before = ""
                root.record(NotificationConfigured(
                    what="channel", name=name, change="changed"
                ))  # fmt: skip
            shown = self._shown(channel)
        self._daemon.alarms.courier.wake()
        return shown

    @method("channel.remove")
    def channel_remove(self, *, name: str, version: str = "") -> dict[str, Any]:
        """Forget a channel that no rule uses; what waits for it is given up."""
        moment = utc_now()
        with self._daemon.store.transact() as root:
            channel = find(root.channels, name, what="channel")
            checks.check_version(channel, version, what="channel")
            users = root.rules.newest(1, channel=name)
            if users:
                raise InvalidInput(
                    f"The rule {users[0].name} uses channel {name}.",
                    next_step=f"Give it another channel, or: borgcube notify rule remove "
                    f"{users[0].name}",
                )  # fmt: skip
            for delivery in list(root.deliveries.oldest("state", QUEUED)):
                if delivery.channel == name:
                    outbox.give_up(root, delivery, error="The channel was removed.", now=moment)
            for incident in root.incidents.newest(
                1, key=f"channel-failing:{name}", state=OPEN
            ):  # fmt: skip
                close(self._daemon.alarms.desk(root), incident, reason="The channel was removed.")
            root.channels.remove(channel)
            root.record(NotificationConfigured(what="channel", name=name, change="removed"))
        return {"removed": name}

    @method("channel.list")
    def channel_list(self) -> list[dict[str, Any]]:
        """Return all channels."""
        with self._daemon.store.transact() as root:
            found = [self._shown(one) for one in root.channels.newest(MAX_LISTED)]
        return sorted(found, key=lambda one: str(one["name"]))

    @method("channel.show")
    def channel_show(self, *, name: str) -> dict[str, Any]:
        """Return one channel."""
        with self._daemon.store.transact() as root:
            return self._shown(find(root.channels, name, what="channel"))

    @method("channel.test", audited=True)
    def channel_test(self, *, name: str) -> dict[str, Any]:
        """Queue a test; its delivery, which is tried once, says what came of it."""
        moment = utc_now()
        with self._daemon.store.transact() as root:
            find(root.channels, name, what="channel")
            letter = notices.trial_letter(
                server=self._daemon.alarms.server, channel=name, at=iso(moment)
            )
            delivery = outbox.post_letter(
                root, kind=TEST, channel=name, rule="", letter=letter, now=moment
            )
            made = {"delivery": delivery.id}
        self._daemon.alarms.courier.wake()
        return made

    # Rules

    @method("rule.add")
    def rule_add(
        self, *, name: str, channel: str, kinds: list[str] | None = None,
        events: list[str] | None = None, severity: str = "warning",
        clients: list[str] | None = None, plans: list[str] | None = None,
        repositories: list[str] | None = None, group_s: int = 60, remind_hours: int = 24,
        all_clear: bool = True, quiet_from: str = "", quiet_until: str = "",
        quiet_lets: str = "error", zone: str = "UTC", digest: str = "", digest_at: str = "07:00",
        digest_day: str = "monday", comment: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Add a rule. It speaks of what happens from now on."""
        rule = Rule(
            name=name, channel=channel, kinds=tuple(["*"] if kinds is None else kinds),
            events=tuple(events or ()), severity=severity, clients=tuple(clients or ()),
            plans=tuple(plans or ()), repositories=tuple(repositories or ()), group_s=group_s,
            remind_hours=remind_hours, all_clear=all_clear, quiet_from=quiet_from,
            quiet_until=quiet_until, quiet_lets=quiet_lets, zone=zone, digest=digest,
            digest_at=digest_at, digest_day=digest_day, comment=comment,
            created_at=now(),
        )  # fmt: skip
        rules.check_rule(rule.as_data())
        with self._daemon.store.transact() as root:
            checks.refuse_duplicate(root.rules, name, what="rule")
            self._check_channel(root, channel)
            if digest:
                rule.next_digest_at = iso(rules.next_letter(rule, utc_now()))
            root.rules.add(rule)
            root.record(NotificationConfigured(what="rule", name=name, change="added"))
            return rule.as_data() | {"remarks": rule_remarks(root, rule)}

    def _check_channel(self, root: Any, name: str) -> None:
        channel = find(root.channels, name, what="channel")
        if getattr(self._notifier(channel.notifier), "heartbeat", False):
            raise InvalidInput(f"Channel {name} only gives signs of life.", field="channel",
                               next_step="Choose one that can carry messages.")  # fmt: skip

    @method("rule.set")
    def rule_set(
        self, *, name: str, channel: str | None = None, kinds: list[str] | None = None,
        events: list[str] | None = None, severity: str | None = None,
        clients: list[str] | None = None, plans: list[str] | None = None,
        repositories: list[str] | None = None, group_s: int | None = None,
        remind_hours: int | None = None, all_clear: bool | None = None,
        quiet_from: str | None = None, quiet_until: str | None = None,
        quiet_lets: str | None = None, zone: str | None = None, digest: str | None = None,
        digest_at: str | None = None, digest_day: str | None = None,
        disabled: bool | None = None, comment: str | None = None, version: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Change what is given; an empty list means all.

        ``version`` is that of the settings the caller saw (``core.versions``); a rule that was
        changed since is left alone.
        """
        values = checks.given({
            "channel": channel, "kinds": kinds, "events": events, "severity": severity,
            "clients": clients, "plans": plans, "repositories": repositories,
            "group_s": group_s, "remind_hours": remind_hours, "all_clear": all_clear,
            "quiet_from": quiet_from, "quiet_until": quiet_until, "quiet_lets": quiet_lets,
            "zone": zone, "digest": digest, "digest_at": digest_at, "digest_day": digest_day,
            "disabled": disabled, "comment": comment,
        })  # fmt: skip
        with self._daemon.store.transact() as root:
            rule = find(root.rules, name, what="rule")
            checks.check_version(rule, version, what="rule")
            rules.check_rule({**rule.as_data(), **values})
            if channel is not None:
                self._check_channel(root, channel)
            changed = checks.change(root.rules, rule, values)
            if {"digest", "digest_at", "digest_day", "zone", "disabled"} & set(changed):
                due = rules.next_letter(rule, utc_now()) if rule.digest else None
                rule.next_digest_at = iso(due) if due else ""
            if changed:
                root.record(NotificationConfigured(
                    what="rule", name=name, change="changed"
                ))  # fmt: skip
            data: dict[str, Any] = rule.as_data()
            return data | {"remarks": rule_remarks(root, rule)}

    @method("rule.remove")
    def rule_remove(self, *, name: str, version: str = "") -> dict[str, Any]:
        """Forget a rule; what it has queued still goes out."""
        with self._daemon.store.transact() as root:
            rule = find(root.rules, name, what="rule")
            checks.check_version(rule, version, what="rule")
            root.rules.remove(rule)
            root.record(NotificationConfigured(what="rule", name=name, change="removed"))
        return {"removed": name}

    @method("rule.list")
    def rule_list(self) -> Any:
        """Return all rules."""
        with self._daemon.store.transact() as root:
            return checks.listed(root.rules)

    @method("rule.show")
    def rule_show(self, *, name: str) -> dict[str, Any]:
        """Return one rule."""
        with self._daemon.store.transact() as root:
            data: dict[str, Any] = find(root.rules, name, what="rule").as_data()
            return data

    # Incidents

    @method("incident.list")
    def incident_list(self, *, state: str = OPEN, limit: int = 100) -> list[dict[str, Any]]:
        """Return incidents, newest first; ``state`` is open, closed, or empty for both."""
        if state not in ("", OPEN, CLOSED):
            raise InvalidInput("state must be open or closed.", field="state")
        equal = {"state": state} if state else {}
        with self._daemon.store.transact() as root:
            return [
                one.as_data()
                for one in root.incidents.newest(_limited(limit), before=None, **equal)
            ]

    def _incident(self, root: Any, id: str) -> Any:
        incident = root.incidents.find("id", id)
        if incident is None:
            raise NotFound(f"There is no incident {id[:40]!r}.",
                           next_step="See: borgcube notify incident list")  # fmt: skip
        if incident.state != OPEN:
            raise InvalidInput(f"Incident {id} is over already.")
        return incident

    @method("incident.show")
    def incident_show(self, *, id: str) -> dict[str, Any]:
        """Return one incident."""
        with self._daemon.store.transact() as root:
            incident = root.incidents.find("id", id)
            if incident is None:
                raise NotFound(f"There is no incident {id[:40]!r}.")
            data: dict[str, Any] = incident.as_data()
            return data

    @method("incident.acknowledge")
    def incident_acknowledge(self, *, id: str, user: str = "") -> dict[str, Any]:
        """Note that somebody knows; reminders of it end."""
        with self._daemon.store.transact() as root:
            incident = self._incident(root, id)
            if not incident.acknowledged_by:
                by = letters.one_line(user, 64) or "somebody"
                acknowledge(self._daemon.alarms.desk(root), incident, user=by)
            data: dict[str, Any] = incident.as_data()
            return data

    @method("incident.close")
    def incident_close(self, *, id: str, user: str = "") -> dict[str, Any]:
        """Call a problem over; it opens anew when it is seen again."""
        with self._daemon.store.transact() as root:
            incident = self._incident(root, id)
            by = letters.one_line(user, 64) or "somebody"
            close(self._daemon.alarms.desk(root), incident, reason=f"Closed by {by}.")
            data: dict[str, Any] = incident.as_data()
        self._daemon.alarms.courier.wake()
        return data

    # Deliveries

    @method("delivery.list")
    def delivery_list(
        self, *, channel: str = "", state: str = "", limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return deliveries, newest first."""
        equal = {k: v for k, v in (("state", state), ("channel", channel)) if v}
        with self._daemon.store.transact() as root:
            return [
                one.as_data()
                for one in root.deliveries.newest(_limited(limit), before=None, **equal)
            ]

    @method("delivery.show")
    def delivery_show(self, *, id: str) -> dict[str, Any]:
        """Return one delivery."""
        with self._daemon.store.transact() as root:
            return self._delivery(root, id).as_data()  # type: ignore[no-any-return]

    @staticmethod
    def _delivery(root: Any, id: str) -> Any:
        delivery = root.deliveries.find("id", id)
        if delivery is None:
            raise NotFound(f"There is no delivery {id[:40]!r}.",
                           next_step="See: borgcube notify log")  # fmt: skip
        return delivery

    @method("delivery.retry")
    def delivery_retry(self, *, id: str) -> dict[str, Any]:
        """Try at once to deliver what waits or was given up."""
        moment = utc_now()
        with self._daemon.store.transact() as root:
            delivery = self._delivery(root, id)
            channel = find(root.channels, delivery.channel, what="channel")
            if delivery.state not in (QUEUED, FAILED):
                raise InvalidInput(f"Delivery {id} is {delivery.state}.")
            if delivery.state == FAILED:
                root.deliveries.change(delivery, state=QUEUED)
                delivery.ended_at = ""
                delivery.created_at = iso(moment)  # so that it is not given up at once
            delivery.due_at = min(delivery.due_at, iso(moment))
            channel.not_before = ""
            data: dict[str, Any] = delivery.as_data()
        self._daemon.alarms.courier.wake()
        return data

    @method("digest.show")
    def digest_show(self, *, rule: str = "", period: str = "daily") -> Later:
        """Return the letter that a rule would send now, or one about everything."""
        if period not in digest.PERIOD:
            raise InvalidInput("period must be daily or weekly.", field="period")
        daemon = self._daemon
        found = Rule(name="(preview)", digest=period)
        if rule:
            with daemon.store.transact() as root:
                known = find(root.rules, rule, what="rule").as_data()
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
            found = Rule(**{**values, "digest": known["digest"] or period, "next_digest_at": ""})

        def write() -> Mapping[str, Any]:
            with daemon.store.reading() as root:
                now = utc_now()
                letter, severity = digest.write(
                    root, found, daemon.alarms.watch.expected(root, now), now,
                    server=daemon.alarms.server, url=daemon.config.console.url.rstrip("/"),
                )  # fmt: skip
            return {"subject": letter.subject, "severity": severity,
                    "text": letters.as_text(letter), "html": letters.as_html(letter)}  # fmt: skip

        return Later(write)
