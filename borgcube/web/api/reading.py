"""What a request says, checked against its endpoint's schemas before a handler sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import jsonschema

from borgcube.core.api import MAX_BODY
from borgcube.core.errors import BorgCubeError, InvalidInput
from borgcube.core.schemas import Schema

MAX_PARAMETERS = 50
TRUTHS = {"true": True, "false": False}


class TooLarge(BorgCubeError):
    """The body is larger than the API takes."""


class NotJson(BorgCubeError):
    """The body says that it is no JSON."""


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[Any]:
    # A dollar of Python also stands before a last newline; that of JSON Schema does not.
    strict = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and not re.search(strict, value):
        yield jsonschema.ValidationError(f"does not match {pattern}")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


class Checker:
    """A schema with its validator; making one raises ``SchemaError`` for what is none."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        _Validator.check_schema(dict(schema))
        self._validator = _Validator(dict(schema))

    def check(self, value: Any, *, what: str) -> None:
        """Raise InvalidInput with the first thing that is wrong, and where."""
        found = min(
            self._validator.iter_errors(value), default=None,
            key=lambda error: (list(map(str, error.absolute_path)), error.message),
        )  # fmt: skip
        if found is None:
            return
        field = ".".join(str(word) for word in found.absolute_path)
        raise InvalidInput(f"{what}: {_in_words(found)}", field=field[:200],
                           next_step="The API's description says what it takes.")  # fmt: skip


def _in_words(error: Any) -> str:
    kind, wanted = error.validator, error.validator_value
    where = ".".join(str(word) for word in error.absolute_path)[:200]
    name = f"{where} " if where else "it "
    if kind == "additionalProperties":
        known = set(error.schema.get("properties", ()))
        unknown = sorted(str(key) for key in error.instance if key not in known)
        return f"there is no {unknown[0][:60]!r} here."
    if kind == "required":
        missing = [key for key in wanted if key not in error.instance]
        return f"{missing[0]} is missing."
    if kind == "type":
        return f"{name}must be of the type {wanted}."
    if kind == "enum":
        return f"{name}must be one of {', '.join(map(str, wanted))}."
    limits = {"minLength": "is too short", "maxLength": "is too long",
              "minimum": f"must be at least {wanted}", "maximum": f"must be at most {wanted}",
              "minItems": "has too few", "maxItems": "has too many",
              "minProperties": "has nothing in it", "pattern": f"must match {wanted}"}  # fmt: skip
    return f"{name}{limits.get(kind, 'is not what is wanted')}."


def read_query(raw: str, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the parameters of a query string in the types of their schemas.

    A list is a parameter that is repeated. Raises InvalidInput for what is unknown, twice
    there, or not UTF-8.
    """
    try:
        pairs = parse_qsl(
            raw, keep_blank_values=True, strict_parsing=bool(raw), errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )  # fmt: skip
    except ValueError as error:
        raise InvalidInput("The query cannot be read.", field="query") from error
    found: dict[str, Any] = {}
    for name, text in pairs:
        schema = schemas.get(name)
        if schema is None:
            known = ", ".join(sorted(schemas)) or "none"
            raise InvalidInput(f"There is no parameter {name[:60]!r}.", field=name[:60],
                               next_step=f"There are: {known}.")  # fmt: skip
        if schema.get("type") == "array":
            found.setdefault(name, []).append(_typed(text, schema["items"]))
        elif name in found:
            raise InvalidInput(f"{name} is there twice.", field=name)
        else:
            found[name] = _typed(text, schema)
    return found


def _typed(text: str, schema: Schema) -> Any:
    kind = schema.get("type")
    if kind == "integer" and text.lstrip("-").isdecimal() and text.isascii() and len(text) < 20:
        return int(text)
    if kind == "boolean":
        return TRUTHS.get(text, text)
    return text  # and the schema says what is wrong with it


def read_json(body: bytes, content_type: str) -> Any:
    """Return the value of a JSON body. Raises TooLarge, NotJson or InvalidInput."""
    if len(body) > MAX_BODY:
        raise TooLarge(f"The body is larger than {MAX_BODY >> 10} KiB.")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise NotJson("The body must be JSON.", next_step="Send Content-Type: application/json.")
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant,
                           object_pairs_hook=_once)  # fmt: skip
        # A lone half of a surrogate pair is JSON, but no text.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except InvalidInput:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body is not valid JSON in UTF-8.") from error
    return value


def _no_constant(name: str) -> Any:
    raise InvalidInput(f"{name} is not JSON.")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput(f"{key[:60]!r} is there twice.", field=key[:60])
        found[key] = value
    return found
