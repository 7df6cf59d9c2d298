"""Finds English that nobody marked for translation, in templates and in Python.

For tests, of BorgCube and of plugins with pages. A template's words belong into ``_()`` or
``{% trans %}``; what is a name everywhere, such as BorgCube, is listed here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from jinja2 import Environment, nodes

NAMES = frozenset({"BorgCube", "Python", "borg", "UTC", "ID", "s", "No."})
SHOWN_ATTRIBUTES = ("aria-label", "title", "placeholder", "alt", "data-label")
MARKS = frozenset({"_", "gettext", "ngettext", "several"})
# Where the shared macros take words: name -> places of arguments, counted from 0.
MACRO_WORDS = {"notice": (1, 2), "post": (1,), "empty": (1, 2, 4), "figure": (1,), "icon": (1,)}
FIELD_WORDS = ("label", "help", "title", "words", "more", "next_step", "message")
WORD = re.compile(r"[A-Za-z]{2,}")
SENTENCE = re.compile(r"^\s*[A-Z][a-z]+\b.*|.*[a-z] [a-z].*", re.S)
BLOCK = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S)


def _is_words(text: str) -> bool:
    left = " ".join(part for part in unescape(text).split() if part.strip("·/,:()") not in NAMES)
    return bool(WORD.search(left))


def in_template(source: str) -> list[str]:
    """Return the unmarked words of a template, each with its line."""
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    found = []
    inside, marked, attribute, place = False, False, "", 0
    for piece in re.split(f"({BLOCK.pattern})", source, flags=re.S):
        line = source.count("\n", 0, place) + 1
        place += len(piece)
        if BLOCK.fullmatch(piece):
            if re.match(r"\{%-?\s*trans\b", piece):
                marked = True
            elif re.match(r"\{%-?\s*endtrans\b", piece):
                marked = False
            elif not piece.startswith("{#"):
                shown = piece.startswith("{{") and (not inside or attribute in SHOWN_ATTRIBUTES)
                words = _in_block(environment, piece, shown=shown)
                found += [f"line {line}: {word!r}" for word in words]
            continue
        for kind, text in _html(piece, inside):
            if kind == "text" and not marked and _is_words(text):
                found.append(f"line {line}: {text.strip()!r}")
            elif kind == "tag":
                for name, value in re.findall(r'([\w-]+)="([^"]*)', text):
                    attribute = name
                    if name in SHOWN_ATTRIBUTES and _is_words(value):
                        found.append(f"line {line}: {name}={value!r}")
                inside = not text.endswith(">")
    return found


def _html(piece: str, inside: bool) -> Iterator[tuple[str, str]]:
    """Yield tags, whole or begun, and what is between them."""
    for text in re.split(r"(<[^>]*>?)", piece):
        if inside:
            head, end, text = text.partition(">")
            yield "tag", head + end
            inside = not end
        if text:
            yield ("tag" if text.startswith("<") else "text"), text
            inside = text.startswith("<") and not text.endswith(">")


def _in_block(environment: Environment, piece: str, *, shown: bool) -> list[str]:
    if piece.startswith("{{"):
        tree = environment.parse(piece)
    else:
        inner = re.sub(r"^\{%[-+]?\s*|\s*[-+]?%\}$", "", piece)
        if inner.split()[0] == "call":
            tree = environment.parse("{{ " + inner.partition(" ")[2] + " }}")
        elif inner.split()[0] == "set" and "=" in inner:
            tree = environment.parse("{{ " + inner.partition("=")[2] + " }}")
        else:
            return []
    return list(_constants(tree, shown=shown))


def _constants(node: nodes.Node, *, shown: bool) -> Iterator[str]:
    """Yield literals that are printed as they are (``shown``), handed to a macro that
    prints them, or read like a sentence."""
    if isinstance(node, nodes.Call):
        name = node.node.attr if isinstance(node.node, nodes.Getattr) else \
            getattr(node.node, "name", "")  # fmt: skip
        if name in MARKS:
            return
        for number, argument in enumerate(node.args):
            yield from _constants(argument, shown=number in MACRO_WORDS.get(name, ()))
        for keyword in node.kwargs:
            yield from _constants(keyword.value, shown=False)
        return
    if isinstance(node, nodes.Const):
        if isinstance(node.value, str) and _is_words(node.value):
            if shown or (SENTENCE.match(node.value) and not node.value.startswith("%")):
                yield node.value
        return
    if isinstance(node, nodes.Pair):
        yield from _constants(node.value, shown=False)
        return
    if isinstance(node, nodes.CondExpr):
        yield from _constants(node.expr1, shown=shown)
        if node.expr2 is not None:
            yield from _constants(node.expr2, shown=shown)
        return
    printed = isinstance(node, nodes.Template | nodes.Output | nodes.Concat | nodes.Or | nodes.And)
    for child in node.iter_child_nodes():
        if not isinstance(child, nodes.TemplateData):
            first_of_filter = isinstance(node, nodes.Filter) and child is node.node
            yield from _constants(child, shown=shown and (printed or first_of_filter))


def in_python(source: str) -> list[str]:
    """Return the sentences of a module, and words of forms, that are not marked. What goes
    to a log, documentation, and the message of an exception that is no ``BorgCubeError``
    are for others than the reader of a page."""
    found: list[str] = []
    _visit(ast.parse(source), found)
    return found


def _visit(node: ast.AST, found: list[str], *, words: bool = False) -> None:
    if isinstance(node, ast.Call) and _called(node) in MARKS | {"getLogger", "compile"}:
        return
    if isinstance(node, ast.Call) and _called(node) in ("exception", "warning", "info", "error"):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.keyword):
        words = node.arg in FIELD_WORDS
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            sentence = re.match(r" ?[A-Z][a-z]+ .*[a-z]", node.value) or node.value.endswith(". ")
            if sentence or (words and _is_words(node.value)):
                found.append(f"line {node.lineno}: {node.value!r}")
        return
    if isinstance(node, ast.Call) and _called(node) in ("Field", "Page", "Card", "Tab"):
        for number, argument in enumerate(node.args):
            _visit(argument, found, words=number == 1)
        for keyword in node.keywords:
            _visit(keyword, found)
        return
    for child in ast.iter_child_nodes(node):
        _visit(child, found, words=words and not isinstance(node, ast.Subscript | ast.Compare))


def _called(node: ast.Call) -> str:
    function: Any = node.func
    return str(getattr(function, "id", getattr(function, "attr", "")))
