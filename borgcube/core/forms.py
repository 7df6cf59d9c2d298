"""Forms as data: fields, what was typed, what it means, and what is wrong with it.

A form never loses what was typed, except passwords. The daemon checks again; what it
refuses lands beside the field its error names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from borgcube.core.errors import BorgCubeError
from borgcube.core.sizes import exact_size, parse_size
from borgcube.core.texts import _

MAX_TEXT = 4096
MAX_LINES = 500
SECRET_KINDS = ("password", "code")
MANY_KINDS = ("checkboxes",)


@dataclass(frozen=True)
class Field:
    """One field. ``kind`` is text, password, code, number, size (bytes, typed as ``10G``,
    nothing is 0), choice, checkbox, checkboxes or lines (one value a line). With ``when``,
    the name of another field and a value, it is taken only while that field has that value."""

    name: str
    label: str
    kind: str = "text"
    help: str = ""
    required: bool = False
    default: Any = ""
    choices: Sequence[tuple[str, str]] = ()
    least: int | None = None
    most: int | None = None
    placeholder: str = ""
    autocomplete: str = "off"
    group: str = ""
    when: tuple[str, str] | None = None


@dataclass
class Form:
    """Fields with what was typed into them (``values``) and what is wrong (``errors``)."""

    fields: Sequence[Field]
    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    next_step: str = ""

    def __post_init__(self) -> None:
        for spec in self.fields:
            value = self.values.setdefault(spec.name, spec.default)
            if spec.kind == "size" and isinstance(value, int):
                self.values[spec.name] = exact_size(value) if value else ""

    def groups(self) -> list[tuple[str, list[Field]]]:
        """Return the fields by group, in order; the group without a name comes first."""
        found: dict[str, list[Field]] = {"": []}
        for spec in self.fields:
            found.setdefault(spec.group, []).append(spec)
        return [(name, fields) for name, fields in found.items() if fields]

    def read(self, posted: Any) -> dict[str, Any] | None:
        """Take in what was posted (a multi-dict); return the checked values or None."""
        checked: dict[str, Any] = {}
        for spec in self.fields:
            raw: Any
            if spec.kind in MANY_KINDS:
                raw = [str(value)[:MAX_TEXT] for value in posted.getall(spec.name)]
            elif spec.kind == "checkbox":
                raw = spec.name in posted
            else:
                absent = spec.default if spec.kind == "choice" else ""
                raw = str(posted.get(spec.name, absent)).replace("\r\n", "\n")
                raw = raw[: MAX_TEXT * (MAX_LINES if spec.kind == "lines" else 1)]
            self.values[spec.name] = "" if spec.kind in SECRET_KINDS else raw
            if spec.when is not None and str(posted.get(spec.when[0], "")) != spec.when[1]:
                checked[spec.name] = spec.default
                continue
            problem, value = _checked(spec, raw)
            if problem:
                self.errors[spec.name] = problem
            checked[spec.name] = value
        return None if self.errors else checked

    def refuse(self, error: BorgCubeError) -> None:
        """Show what the daemon said: beside the field it names, else above the form."""
        names = {spec.name for spec in self.fields}
        if error.field in names:
            self.errors[error.field] = f"{error.message} {error.next_step}".strip()
        else:
            self.problem, self.next_step = error.message, error.next_step


def _checked(spec: Field, raw: Any) -> tuple[str, Any]:
    if spec.kind == "checkbox":
        return "", bool(raw)
    if spec.kind in MANY_KINDS:
        known = {value for value, _ in spec.choices}
        if any(value not in known for value in raw):
            return _("Choose from the list."), raw
        return (_("Choose at least one.") if spec.required and not raw else ""), raw
    if spec.kind == "lines":
        lines = [line.strip() for line in raw.split("\n") if line.strip()]
        if len(lines) > MAX_LINES:
            return _("At most %(most)s lines.", most=MAX_LINES), lines
        return (_("At least one line is needed.") if spec.required and not lines else ""), lines
    text = raw if spec.kind in SECRET_KINDS else raw.strip()
    if "\n" in text or "\0" in text:
        return _("This must be one line."), text
    if not text:
        if spec.required:
            return _("This is needed."), text
        if spec.kind == "size":
            return "", 0
        if spec.kind == "choice" and "" not in {value for value, _label in spec.choices}:
            return "", spec.default  # a page from before the field was there
        return "", (int(spec.default or 0) if spec.kind == "number" else text)
    if spec.kind == "choice" and text not in {value for value, _ in spec.choices}:
        return _("Choose from the list."), text
    if spec.kind == "number":
        return _number(spec, text)
    if spec.kind == "size":
        try:
            return "", parse_size(text)
        except ValueError:
            return _("This must be a size such as 500M or 10G."), 0
    return "", text


def _number(spec: Field, text: str) -> tuple[str, Any]:
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 15:
        return _("This must be a whole number."), 0
    value = int(text)
    if spec.least is not None and value < spec.least:
        return _("At least %(least)s.", least=spec.least), value
    if spec.most is not None and value > spec.most:
        return _("At most %(most)s.", most=spec.most), value
    return "", value


def only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the named values."""
    return {name: values[name] for name in names}
