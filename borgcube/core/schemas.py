"""JSON Schemas (draft 2020-12) of what the API takes and gives, as plain data.

Pure. Schemas of records are made from the records' own fields, so that a new field is in
the API's description at once. A schema with a ``title`` has a name in the API's document.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from borgcube.core.model import Record

Schema = Mapping[str, Any]

# No control characters. Whatever is text goes to one line of a log or a command line.
ONE_LINE = "^[^\\u0000-\\u001f\\u007f]*$"
# The name of something that is there.
REFERENCE: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
# The same, or nothing.
NO_NAME: Schema = {"type": "string", "pattern": "^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$"}
NAME: Schema = {
    **REFERENCE, "description": "Up to 64 letters, digits, '.', '_' and '-', beginning with a"
    " letter or digit.",
}  # fmt: skip
CURSOR: Schema = {
    "type": "string", "pattern": "^[0-9]{1,17}$",
    "description": "Where the next page begins; from `next` of the page before.",
}  # fmt: skip
MOMENT: Schema = {
    "type": "string", "maxLength": 40,
    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?"
    "(Z|[+-][0-9]{2}:[0-9]{2})$",
    "description": "A time with its offset, as in RFC 3339.",
}  # fmt: skip
MAX_WHOLE = 1 << 53  # what a JSON number holds everywhere


def text(*, longest: int = 4096, shortest: int = 0, description: str = "") -> Schema:
    """Return the schema of one line of text."""
    made: dict[str, Any] = {"type": "string", "maxLength": longest, "pattern": ONE_LINE}
    if shortest:
        made["minLength"] = shortest
    return made | ({"description": description} if description else {})


def whole(least: int = 0, most: int = MAX_WHOLE, description: str = "") -> Schema:
    """Return the schema of a whole number."""
    made = {"type": "integer", "minimum": least, "maximum": most}
    return made | ({"description": description} if description else {})


def yes_or_no(description: str = "") -> Schema:
    """Return the schema of a truth."""
    return {"type": "boolean"} | ({"description": description} if description else {})


def many(items: Schema, *, most: int = 500, least: int = 0, description: str = "") -> Schema:
    """Return the schema of a list."""
    made: dict[str, Any] = {"type": "array", "items": items, "maxItems": most}
    if least:
        made["minItems"] = least
    return made | ({"description": description} if description else {})


def one_of(values: Iterable[str], description: str = "") -> Schema:
    """Return the schema of one word out of several."""
    made: dict[str, Any] = {"type": "string", "enum": list(values)}
    return made | ({"description": description} if description else {})


def thing(
    properties: Mapping[str, Schema], *, required: Iterable[str] = (), title: str = "",
    least: int = 0,
) -> Schema:  # fmt: skip
    """Return the schema of an object that has these properties and no others."""
    made: dict[str, Any] = {"type": "object", "properties": dict(properties),
                            "additionalProperties": False}  # fmt: skip
    if required:
        made["required"] = list(required)
    if least:
        made["minProperties"] = least
    return made | ({"title": title} if title else {})


def given(properties: Mapping[str, Schema], *, title: str = "") -> Schema:
    """Return the schema of an answer, all of whose properties are there."""
    return thing(properties, required=properties, title=title)


def of_record(kind: type[Record], *, more: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of what ``as_data()`` of a record gives, and of ``more`` beside it."""
    hints = typing.get_type_hints(kind)
    properties = {name: _of_hint(hints[name]) for name in kind.field_names()
                  if name not in kind.PRIVATE}  # fmt: skip
    return given(properties | dict(more or {}), title=kind.__name__)


def fields_of(
    kind: type[Record], names: Iterable[str] | Mapping[str, str], **closer: Schema
) -> dict[str, Schema]:
    """Return the schemas of some fields of a record, those in ``closer`` as given there;
    ``names`` may map them to what they mean."""
    hints = typing.get_type_hints(kind)
    found = {name: closer.get(name) or _taken(hints[name]) for name in names}
    if isinstance(names, Mapping):
        found = {name: {**schema, "description": names[name]} for name, schema in found.items()}
    return found


def _of_hint(hint: Any) -> Schema:
    if isinstance(hint, types.UnionType):
        parts = [_of_hint(part) for part in typing.get_args(hint)]
        return {"type": [part["type"] for part in parts]}
    if hint is types.NoneType:
        return {"type": "null"}
    origin = typing.get_origin(hint) or hint
    if origin in (tuple, list):
        return {"type": "array", "items": _of_hint(typing.get_args(hint)[0])}
    names = {str: "string", int: "integer", bool: "boolean", dict: "object", float: "number"}
    return {"type": names[origin]}


def _taken(hint: Any) -> Schema:
    """Return the schema of a value that comes from outside: bounded."""
    origin = typing.get_origin(hint) or hint
    if origin in (tuple, list):
        return many(text(shortest=1))
    if origin is str:
        return text()
    if origin is int:
        return whole()
    return _of_hint(hint)
