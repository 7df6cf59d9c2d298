"""The console's page about the API: every operation, made from the same description that
programs get."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from pyramid.renderers import render

from borgcube.core.access import Permission
from borgcube.core.api import BASE
from borgcube.core.openapi import KINDS, document
from borgcube.core.texts import _
from borgcube.plugins.api import ApiPage

IN = {"path": _("in the path"), "header": _("in a header")}
TEMPLATES = "borgcube.plugins.api:templates"
METHODS = ("get", "post", "put", "patch", "delete")


def fields_of(schema: dict[str, Any]) -> list[dict[str, str]]:
    """Return the properties of an object's schema as rows: name, type, note, description."""
    names = schema.get("required", ())
    # Where everything is there, nothing needs to say so.
    required = set() if set(names) == set(schema.get("properties", ())) else set(names)
    return [
        {"name": name, "type": type_of(part), "note": _("needed") if name in required else "",
         "description": str(part.get("description", ""))}
        for name, part in schema.get("properties", {}).items()
    ]  # fmt: skip


def type_of(schema: dict[str, Any]) -> str:
    """Return the type of a value in words: ``string``, ``integer 1..65535``, ``list of string``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    least, most = schema.get("minimum"), schema.get("maximum")
    if isinstance(least, int) and isinstance(most, int) and most < 1 << 40:
        return f"{words} {least}..{most}"
    return words


def _body(operation: dict[str, Any], schemas: dict[str, Any]) -> list[dict[str, str]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return fields_of(schemas.get(name, schema))


def _answer(operation: dict[str, Any]) -> tuple[str, str]:
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
            items = schema.get("properties", {}).get("items", {})
            if items.get("items", {}).get("$ref"):
                return status, f"page of {type_of(items['items'])}"
            return status, type_of(schema) if schema else "nothing"
    return "", ""


def _drawn(request: Any) -> tuple[Markup, int]:
    """Return all operations, schemas and problems, drawn, and how many operations there are."""
    endpoints = sorted(request.registry.api_endpoints, key=lambda e: (e.path, e.method))
    made = document(endpoints, server=request.path_to(*BASE.strip("/").split("/")))
    schemas = made["components"]["schemas"]
    tags: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in made["tags"]}
    for path, operations in made["paths"].items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                tags[operation["tags"][0]].append(_row(method, path, operation, schemas))
    body = render(f"{TEMPLATES}/reference_body.jinja2", {
        "tags": tags, "kinds": KINDS,
        "schemas": {name: fields_of(schema) for name, schema in schemas.items()},
    }, request)  # fmt: skip
    return Markup(body), len(endpoints)


def _row(
    method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    status, answer = _answer(operation)
    return {
        "method": method.upper(), "path": path, "operation": operation,
        "parameters": [
            {"name": p["name"], "type": type_of(p["schema"]), "note": IN.get(p["in"], ""),
             "description": p.get("description", "")}
            for p in operation.get("parameters", ())
        ],
        "body": _body(operation, schemas), "status": status, "answer": answer,
    }  # fmt: skip


def reference(context: ApiPage, request: Any) -> dict[str, Any]:
    """Show every operation by tag, the schemas, and the kinds of problems."""
    drawn = request.registry.settings.setdefault("borgcube.api_reference", {})
    # Drawing takes long and says the same to everybody who reads the same language.
    key = (request.locale_name, request.script_name)
    if key not in drawn:
        drawn[key] = _drawn(request)
    body, count = drawn[key]
    api = BASE.strip("/").split("/")
    return {"body": body, "count": count, "first": request.address_of(*api, "me"),
            "server": request.path_to(*api)}  # fmt: skip


def includeme(config: Any) -> None:
    """Add the view."""
    config.add_view(
        reference, context=ApiPage, permission=Permission.VIEW, request_method="GET",
        renderer=f"{TEMPLATES}/reference.jinja2",
    )  # fmt: skip
