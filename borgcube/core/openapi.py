"""The API's description, OpenAPI 3.1, made from the endpoints that plugins brought.

Pure. Schemas with a ``title`` become named components.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from borgcube import __version__
from borgcube.core.api import Endpoint
from borgcube.core.schemas import CURSOR, given

PROBLEM = {
    "title": "Problem", "type": "object",
    "required": ["type", "title", "status", "detail", "kind", "next_step"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, in words."},
        "kind": {"type": "string", "description": "A stable word for programs."},
        "next_step": {"type": "string", "description": "What to do about it, in words."},
        "field": {"type": "string", "description": "What in the request is at fault."},
    },
}  # fmt: skip
# kind -> (status, when); the API's page lists them.
KINDS: Mapping[str, tuple[int, str]] = {
    "invalid-input": (400, "The query or the body does not fit, or names what is not there."),
    "not-logged-in": (401, "There is no token, or it is unknown, past its time or revoked."),
    "access-denied": (403, "Role, scope or clients of who asks do not allow it."),
    "confirmation-needed": (403, "A person gives the password or a code again; see /me/confirm."),
    "no-person": (403, "Only a login may do this, no token."),
    "no-form-token": (403, "A browser's session changes things only with its form token."),
    "foreign-site": (403, "A browser says that another site asks."),
    "not-found": (404, "What the path names is not there, or not for who asks."),
    "method-not-allowed": (405, "The path is right and the method is not; see Allow."),
    "timeout": (408, "The body did not come in time."),
    "duplicate": (409, "The name is taken."),
    "unreadable": (409, "What is stored is damaged, or its repository cannot be used now."),
    "illegal-transition": (409, "A job in this state cannot do that."),
    "no-length": (411, "The request needs a Content-Length."),
    "conflict": (412, "The record is not the one that If-Match names."),
    "too-large": (413, "The body is too large."),
    "not-json": (415, "The body is not declared as JSON."),
    "too-many": (429, "Too many wrong tokens or passwords, or the daemon is busy; see"
                 " Retry-After."),
    "internal-error": (500, "A mistake of ours; the log has the details."),
    "daemon-unreachable": (503, "The daemon does not answer."),
    "home-write-error": (503, "The daemon cannot write its home directory."),
}  # fmt: skip
ANYWHERE = ("400", "401", "403", "429", "500", "503")


def document(endpoints: Iterable[Endpoint], *, server: str, cookie: str = "") -> dict[str, Any]:
    """Return the document; ``server`` is the API's path and ``cookie`` the session's name."""
    components: dict[str, Any] = {}
    problem = _hoisted(PROBLEM, components)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, None] = {}
    for endpoint in endpoints:
        tags.setdefault(tag_of(endpoint))
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(
            endpoint, components, problem
        )
    schemes: dict[str, Any] = {"token": {"type": "http", "scheme": "bearer"}}
    if cookie:
        schemes["session"] = {"type": "apiKey", "in": "cookie", "name": cookie}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BorgCube", "version": __version__, "license": {
                "name": "BSD-3-Clause", "identifier": "BSD-3-Clause"
            },
            "description": "Everything that the console shows and does. Times are RFC 3339 in"
            " UTC, sizes are bytes. Errors are problem documents (RFC 9457).",
        },
        "servers": [{"url": server}],
        "security": [{name: []} for name in schemes],
        "tags": [{"name": tag} for tag in sorted(tags)],
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": schemes, "schemas": dict(sorted(components.items()))},
    }  # fmt: skip


def tag_of(endpoint: Endpoint) -> str:
    """Return what an endpoint is listed under: its tag, or the first word of its path."""
    return endpoint.tag or endpoint.path.split("/")[1]


def _operation(endpoint: Endpoint, components: dict[str, Any], problem: Any) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in endpoint.parameters
    ]
    for name, schema in endpoint.query.items():
        shown = {key: value for key, value in schema.items() if key != "description"}
        entry = {"name": name, "in": "query", "required": False, "schema": shown}
        if "description" in schema:
            entry["description"] = schema["description"]
        parameters.append(entry)
    changes = endpoint.method != "GET"
    if endpoint.versioned and changes:
        parameters.append({
            "name": "If-Match", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "The ETag of the record as you saw it; another one is refused.",
        })  # fmt: skip
    made: dict[str, Any] = {
        "operationId": endpoint.name, "summary": endpoint.summary, "tags": [tag_of(endpoint)],
        "x-permission": str(endpoint.permission),
    }  # fmt: skip
    if endpoint.description:
        made["description"] = endpoint.description
    if endpoint.person:
        made["security"] = [{"session": []}]
    if parameters:
        made["parameters"] = parameters
    if endpoint.body is not None:
        made["requestBody"] = {"required": not endpoint.optional, "content": {
            "application/json": {"schema": _hoisted(endpoint.body, components)}
        }}  # fmt: skip
    made["responses"] = _responses(endpoint, components, problem)
    return made


def _responses(endpoint: Endpoint, components: dict[str, Any], problem: Any) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    if endpoint.binary:
        answers["200"] = {"description": "The bytes. A connection that ends early means that"
                          " the rest cannot be read.",
                          "content": {"application/octet-stream": {"schema": {}}}}  # fmt: skip
    elif endpoint.returns is None:
        answers["204"] = {"description": "Done."}
    else:
        schema = _hoisted(endpoint.returns, components)
        if endpoint.paged:
            schema = page_of(schema)
        good: dict[str, Any] = {"description": "Done." if endpoint.status != 202 else
                                "Begun; the job's address is in Location.",
                                "content": {"application/json": {"schema": schema}}}  # fmt: skip
        answers[str(endpoint.status)] = good
    if endpoint.method == "GET" and not endpoint.binary:
        answers["304"] = {"description": "Nothing changed since the ETag of If-None-Match."}
    statuses = [*ANYWHERE]
    if endpoint.parameters:
        statuses.append("404")
    if endpoint.method != "GET" or endpoint.binary:
        statuses.append("409")
    if endpoint.body is not None:
        statuses += ["413", "415"]
    if endpoint.versioned and endpoint.method != "GET":
        statuses.append("412")
    for status in sorted(statuses):
        whens = [when for code, when in KINDS.values() if str(code) == status]
        content = {"application/problem+json": {"schema": problem}}
        answers[status] = {"description": whens[0], "content": content}
    return answers


def page_of(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of one page of a list."""
    return given({
        "items": {"type": "array", "items": item},
        "next": {"type": ["string", "null"],
                 "description": "The path of the next page; also in the header Link."},
    })  # fmt: skip


def page_query(*, most: int = 500) -> dict[str, Any]:
    """Return the parameters that every list has."""
    return {
        "limit": {"type": "integer", "minimum": 1, "maximum": most,
                  "description": f"How many at once, 50 if not given, {most} at most."},
        "cursor": CURSOR,
    }  # fmt: skip


def _hoisted(schema: Any, components: dict[str, Any]) -> Any:
    """Return the schema with everything that has a title moved to the components."""
    if isinstance(schema, list):
        return [_hoisted(part, components) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "properties" in schema:
        properties = {key: _hoisted(part, components)
                      for key, part in schema["properties"].items()}  # fmt: skip
        made = {**schema, "properties": properties}
    else:
        made = {key: _hoisted(part, components) for key, part in schema.items()}
    title = schema.get("title")
    if not isinstance(title, str):
        return made
    components[title] = made
    return {"$ref": f"#/components/schemas/{title}"}
