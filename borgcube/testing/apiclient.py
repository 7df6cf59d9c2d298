"""A client of the API for tests, and a check of answers against its own description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema

from borgcube.testing.consolerig import Answer, Visitor

BASE = "/api/v1"


class Api:
    """Asks with a token. Every answer is checked against the description, once it is given."""

    def __init__(
        self, port: int, token: str = "", *, document: Any = None, source: str = "127.0.0.1"
    ) -> None:
        self.visitor = Visitor(port, source=source)
        self.token = token
        self.document = document
        if token:
            self.visitor.extra["Authorization"] = f"Bearer {token}"

    def ask(
        self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; ``data`` goes as JSON unless it is bytes."""
        body, sent = b"", dict(headers or {})
        if data is not None:
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            sent.setdefault("Content-Type", "application/json")
        answer = self.visitor.ask(method, path if path.startswith("/api") else f"{BASE}{path}",
                                  body, sent)  # fmt: skip
        if self.document is not None:
            self.check(method, path, answer)
        return answer

    def get(self, path: str, **headers: str) -> Any:
        """Return the JSON of a page that must be there."""
        answer = self.ask("GET", path, headers=headers)
        assert answer.status == 200, (path, answer.status, answer.text)
        return json.loads(answer.body)

    def check(self, method: str, path: str, answer: Answer) -> None:
        """Assert that an answer is what the description says of it."""
        operation = self.operation(method, path)
        if operation is None:
            assert answer.status in (401, 404, 405, 429), (method, path, answer.status)
            return
        described = operation["responses"].get(str(answer.status))
        assert described is not None, (method, path, answer.status, answer.text)
        content = described.get("content", {})
        if not content:
            assert answer.body == b"", (method, path, answer.body)
            return
        (kind, value), *_ = content.items()
        assert answer.headers["content-type"].startswith(kind), (path, answer.headers)
        schema = {**value["schema"], "components": self.document["components"]}
        jsonschema.validate(json.loads(answer.body), schema, jsonschema.Draft202012Validator)

    def operation(self, method: str, path: str) -> Any:
        """Return the description of an operation, or None when there is none."""
        words = path.partition("?")[0].removeprefix(BASE)
        # Written-out words first, as the server does.
        known = sorted(self.document["paths"], key=lambda one: one.count("{"))
        for known_path in known:
            pattern = re.sub(r"\{[a-z_]+\}", "[^/]+", known_path)
            operation = self.document["paths"][known_path].get(method.lower())
            if operation is not None and re.fullmatch(pattern, words):
                return operation
        return None
