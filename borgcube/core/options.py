"""Options that a plugin describes by form fields: found, checked, and named.

Transports describe the options of a client, job types the parameters of a task, notifiers
the options of a channel. The console draws the fields, the daemon checks what comes back;
both use this. Pure. It must never know what an option means: that is the plugin's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from borgcube.core.errors import InvalidInput
from borgcube.core.forms import MANY_KINDS, MAX_LINES, MAX_TEXT, Field
from borgcube.core.sizes import parse_size

LOG = logging.getLogger(__name__)
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


def described(owner: Any) -> list[Field]:
    """Return the fields that a transport (``option_fields``) or a job type
    (``parameter_fields``) describes; none when it has no such method or the method fails."""
    for name in ("option_fields", "parameter_fields"):
        method = getattr(owner, name, None)
        if method is not None:
            try:
                return list(method())
            except Exception:
                LOG.exception("%s of %s failed", name, getattr(owner, "name", owner))
    return []


def field_name(owner: Any, option: str) -> str:
    """Return what an option is called in forms and errors, such as ``openssh.ssh_config``."""
    return f"{owner.name}.{option}"


def fields_of(owner: Any, **more: Any) -> list[Field]:
    """Return the described fields under their names in forms, with ``more`` replaced."""
    return [replace(spec, name=field_name(owner, spec.name), **more) for spec in described(owner)]


def checked_options(owner: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with those that ``owner`` describes checked and in their plain form.

    What no field describes is left as it is, and what was left empty is left out. Raises
    InvalidInput with ``field`` as :func:`field_name` has it.
    """
    found = dict(given)
    for spec in described(owner):
        named = replace(spec, name=field_name(owner, spec.name))
        value = checked_value(named, given.get(spec.name))
        if spec.name not in given:
            continue  # only looked at for what is required
        if value == unset(spec):
            del found[spec.name]
        else:
            found[spec.name] = value
    return found


def unset(spec: Field) -> Any:
    """Return what a form's field has when nobody filled it in."""
    if spec.kind == "lines" or spec.kind in MANY_KINDS:
        return list(spec.default) if isinstance(spec.default, list | tuple) else []
    if spec.kind == "checkbox":
        return bool(spec.default)
    if spec.kind in ("number", "size"):
        return int(spec.default or 0)
    return spec.default


def shown(owner: Any, stored: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return stored options as values of the form's fields, and those no field describes.

    A value that its field would refuse is shown as it is, for a person to mend.
    """
    rest, values = dict(stored), {}
    for spec in described(owner):
        value = rest.pop(spec.name, None)
        try:
            value = unset(spec) if value is None else checked_value(spec, value)
        except InvalidInput:
            value = value if isinstance(value, bool | int | str) else str(value)
        values[field_name(owner, spec.name)] = value
    return values, rest


def meant(
    owner: Any, values: Mapping[str, Any], lines: Sequence[str], *, field: str
) -> dict[str, Any]:
    """Return the options that a form's values and its free NAME=VALUE ``lines`` mean.

    Raises InvalidInput for the form's ``field`` of the lines.
    """
    specs = {spec.name: spec for spec in described(owner)}
    found: dict[str, Any] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not name.strip() or not equals:
            raise InvalidInput(f"{line[:80]!r} is not NAME=VALUE.", field=field)
        if name.strip() in specs:
            raise InvalidInput(f"{name.strip()[:80]} has a field of its own.", field=field,
                               next_step="Write it there.")  # fmt: skip
        found[name.strip()] = value.strip()
    for name, spec in specs.items():
        value = values[field_name(owner, name)]
        if value != unset(spec):
            found[name] = value
    return found


def _refuse(spec: Field, what: str) -> InvalidInput:
    return InvalidInput(f"{spec.label}: {what}", field=spec.name)


def checked_value(spec: Field, value: Any) -> Any:
    """Return a value as its field means it; None or an empty one is the field's default.

    ``value`` is plain data from outside: of a form, or text from the command line. Raises
    InvalidInput with the field's name.
    """
    many = spec.kind == "lines" or spec.kind in MANY_KINDS
    if value is None or value == "":
        value = spec.default
        if many:
            value = list(value) if isinstance(value, list | tuple) else []
    if many:
        return _checked_list(spec, value)
    if spec.kind == "checkbox":
        if value in ("", None):
            return False
        word = str(value).lower()
        if word not in (*TRUE, *FALSE):
            raise _refuse(spec, "this must be true or false.")
        return word in TRUE
    if spec.kind == "number":
        return _checked_number(spec, value)
    if spec.kind == "size":
        return _checked_size(spec, value)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _refuse(spec, f"this must be text of at most {MAX_TEXT} characters.")
    if any(not char.isprintable() for char in value):
        raise _refuse(spec, "this must be one line of printable text.")
    if spec.required and not value:
        raise _refuse(spec, "this is needed.")
    if spec.kind == "choice" and value not in {key for key, _ in spec.choices}:
        raise _refuse(spec, f"choose one of {', '.join(key for key, _ in spec.choices)}.")
    return value


def _checked_list(spec: Field, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _refuse(spec, "this must be a list of texts.")
    if len(value) > MAX_LINES or any(len(item) > MAX_TEXT for item in value):
        raise _refuse(spec, f"at most {MAX_LINES} lines of {MAX_TEXT} characters.")
    lines = [item.strip() for item in value if item.strip()]
    if any(not char.isprintable() for line in lines for char in line):
        raise _refuse(spec, "this must be printable text.")
    if spec.required and not lines:
        raise _refuse(spec, "at least one is needed.")
    if spec.kind in MANY_KINDS and not set(lines) <= {key for key, _ in spec.choices}:
        raise _refuse(spec, "choose from the list.")
    return lines


def _checked_number(spec: Field, value: Any) -> int:
    if isinstance(value, str) and value.lstrip("-").isascii() and value.lstrip("-").isdigit():
        value = int(value[:20])
    if type(value) is not int:
        raise _refuse(spec, "this must be a whole number.")
    if spec.least is not None and value < spec.least:
        raise _refuse(spec, f"at least {spec.least}.")
    if spec.most is not None and value > spec.most:
        raise _refuse(spec, f"at most {spec.most}.")
    return int(value)


def _checked_size(spec: Field, value: Any) -> int:
    if value == "":
        return 0
    try:
        size = value if type(value) is int else parse_size(str(value)[:100])
    except ValueError:
        size = -1
    if size < 0:
        raise _refuse(spec, "this must be a size such as 500M or 10G.")
    return int(size)
