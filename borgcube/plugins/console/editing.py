"""Editing clients, plans and repositories: prefilled forms that overwrite nobody's change.

A form carries the version of the record it was filled from and, for each field, a short
word for the value it showed. The daemon compares the version in the transaction of the
change. Where somebody else was quicker, both values are shown side by side, what was typed
is kept, and the user chooses. Only fields that differ are sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther

from borgcube.core.access import Permission
from borgcube.core.errors import BorgCubeError, Conflict
from borgcube.core.forms import SECRET_KINDS, Field, Form
from borgcube.core.sizes import exact_size
from borgcube.core.texts import _
from borgcube.core.versions import version_of
from borgcube.plugins.console import forms, plans
from borgcube.plugins.console.resources import ClientItem, PlanItem, RepositoryItem, add

MINE, THEIRS = "mine", "theirs"
MAX_SEEN = 20_000
Values = dict[str, Any]


def _same(_request: Any, data: Mapping[str, Any]) -> Values:
    return dict(data)


@dataclass(frozen=True)
class Kind:
    """What can be edited. ``shown`` turns a record's data into values of the form's fields
    and ``meant`` turns checked values into parameters of ``NAME.set``; ``meant`` raises
    BorgCubeError with the field at fault."""

    name: str
    place: str
    fields: Callable[[Any, Mapping[str, Any]], list[Field]]
    shown: Callable[[Any, Mapping[str, Any]], Values] = _same
    meant: Callable[[Any, Mapping[str, Any]], Values] = _same


@dataclass(frozen=True)
class Clash:
    """A field that somebody else changed, with both values as text and which one to keep
    unless the user says otherwise."""

    name: str
    label: str
    mine: str
    theirs: str
    keep: str


KINDS = (
    Kind("client", "clients", forms.client_edit_fields, forms.client_shown, forms.client_meant),
    Kind("plan", "plans", forms.plan_edit_fields),
    Kind("repository", "repositories", forms.repository_edit_fields),
)


def as_text(spec: Field, value: Any) -> str:
    """Return a field's value as a person reads it."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value)) or _("nothing")
    if spec.kind == "size":
        return exact_size(value) if value else _("no limit")
    return str(value) or _("nothing")


def seen_of(fields: list[Field], values: Mapping[str, Any]) -> dict[str, str]:
    """Return a short word for each field's value, for the form to carry."""
    return {spec.name: version_of({"": values[spec.name]}) for spec in fields}


def _posted_seen(text: str) -> dict[str, Any]:
    try:
        seen = json.loads(text[:MAX_SEEN])
    except (ValueError, RecursionError):
        return {}
    return seen if isinstance(seen, dict) else {}


def clashes_of(
    fields: list[Field], typed: Mapping[str, Any], now: Mapping[str, Any], seen: Mapping[str, Any]
) -> list[Clash]:
    """Return the fields that changed since the form was filled and differ from what was
    typed; without a word for a field's first value, all that differ."""
    words = seen_of(fields, now)
    found = []
    for spec in fields:
        if spec.kind in SECRET_KINDS:
            continue  # never shown, not even to choose
        before = seen.get(spec.name)
        if typed[spec.name] == now[spec.name] or before == words[spec.name]:
            continue
        untouched = before == version_of({"": typed[spec.name]})
        found.append(Clash(
            spec.name, spec.label, as_text(spec, typed[spec.name]), as_text(spec, now[spec.name]),
            THEIRS if untouched else MINE,
        ))  # fmt: skip
    return found


class Edit:
    """One visit of an edit page."""

    def __init__(self, kind: Kind, context: Any, request: Any) -> None:
        self.kind, self.request = kind, request
        self.name = str(context.record.name)
        self.record_type = type(context.record)
        self.data: Values = context.record.as_data()
        self.fields = kind.fields(request, self.data)
        self.now = self._shown(self.data)
        self.form = Form(self.fields, dict(self.now))
        self.seen: Mapping[str, Any] = seen_of(self.fields, self.now)
        self.clashes: list[Clash] = []
        self.typed: Values | None = None
        self.answer: Values = {}  # the daemon's, once something was changed

    def _shown(self, data: Mapping[str, Any]) -> Values:
        shown = self.kind.shown(self.request, data)
        return {spec.name: shown[spec.name] for spec in self.fields}

    @property
    def _version(self) -> str:
        return version_of(self.record_type.settings_of(self.data))

    def read(self) -> None:
        """Take in what was posted, with what the user chose where there was a clash."""
        posted = self.request.POST
        self.seen = _posted_seen(str(posted.get("seen", "")))
        self.typed = self.form.read(posted)
        for name in [n for n in self.now if posted.get(f"keep-{n}") == THEIRS]:
            self.form.values[name] = self.now[name]
            self.form.errors.pop(name, None)
            if self.typed is not None:
                self.typed[name] = self.now[name]
            self.seen = {**self.seen, name: version_of({"": self.now[name]})}
        for name in [n for n in self.now if posted.get(f"keep-{n}") == MINE]:
            # It was looked at: only a change after this one is a clash again.
            self.seen = {**self.seen, name: str(posted.get(f"was-{name}", ""))[:64]}

    def save(self) -> bool:
        """Change the record; False leaves the reason in the form or in the clashes."""
        if self.typed is None or self.form.errors:
            return False
        version = str(self.request.POST.get("version", ""))[:64]
        for _attempt in range(3):
            if version != self._version:
                self.clashes = clashes_of(self.fields, self.typed, self.now, self.seen)
                if self.clashes:
                    return False
                version = self._version
            try:
                self._set(version)
                return True
            except BorgCubeError as error:
                if getattr(error, "kind", "") != Conflict.__name__:
                    self.form.refuse(error)
                    return False
            # Somebody changed it since this request began to look.
            self.data = self.request.act(f"{self.kind.name}.show", name=self.name)
            self.now = self._shown(self.data)
        self.form.problem = _("Somebody else keeps changing this.")
        self.form.next_step = _("Wait a moment and save again.")
        return False

    def try_out(self) -> Any:
        """Make a dry run of a plan with what is typed, saved or not; None when it is refused."""
        if self.typed is None or self.form.errors:
            return None
        known = {spec.name for spec in forms.plan_fields(self.request)}
        options = {key: value for key, value in self.data.items() if key in known}
        return plans.try_out(self.request, self.form, {**options, **self.typed})

    def _set(self, version: str) -> None:
        assert self.typed is not None
        before = self.kind.meant(self.request, self.now)
        after = self.kind.meant(self.request, self.typed)
        # A field that others changed and the user did not touch stays as it is now.
        changes = {key: value for key, value in after.items() if value != before[key]}
        if changes:
            self.answer = self.request.act(
                f"{self.kind.name}.set", name=self.name, version=version, **changes
            )

    def page(self) -> dict[str, Any]:
        """Return what the template shows. Until a clash was shown, the form goes on counting
        from what it was filled from, however often it is sent."""
        version = self._version
        if self.request.method == "POST" and not self.clashes:
            version = str(self.request.POST.get("version", ""))[:64]
        return {
            "kind": self.kind, "name": self.name, "form": self.form, "clashes": self.clashes,
            "version": version, "record": self.data,
            "seen": json.dumps(dict(self.seen)), "now": seen_of(self.fields, self.now),
            "back": self.request.path_to(self.kind.place, self.name), "command": "",
        }  # fmt: skip


def view_of(kind: Kind) -> Any:
    """Return the view that edits one kind of thing."""

    def edit(context: Any, request: Any) -> Any:
        visit = Edit(kind, context, request)
        command = ""
        if request.method == "POST":
            visit.read()
            if "preview" in request.POST and visit.typed is not None:
                command = plans.command_of(request, {**visit.data, **visit.typed})
            elif plans.DRY_RUN in request.POST and kind.name == "plan":
                begun = visit.try_out()
                if begun is not None:
                    return begun
                request.response.status_code = 400
            elif visit.save():
                return HTTPSeeOther(request.path_to(kind.place, visit.name))
            else:
                request.response.status_code = 409 if visit.clashes else 400
        return {**visit.page(), "command": command}

    return edit


def includeme(config: Any) -> None:
    """Add the views."""
    items = {"client": ClientItem, "plan": PlanItem, "repository": RepositoryItem}
    for kind in KINDS:
        add(config, view_of(kind), items[kind.name], "edit", template="edit",
            permission=Permission.CONFIGURE, posts=True)  # fmt: skip
