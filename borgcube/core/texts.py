"""Texts for people that can be translated: English here, another language when shown.

Whoever writes a text for a page marks it: ``_("Not backed up yet")``, ``_("At least
%(least)s.", least=5)``, ``several("%(n)s plan", "%(n)s plans", 3)``. What comes out is an
ordinary string in English, for logs and for whoever does not translate; the console finds
its parts again and shows it in the reader's language. The catalog is made from these marks.
It knows no web framework and no catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Translate = Callable[[str], str]
TranslateSeveral = Callable[[str, str, int], str]


class Text(str):
    """A string that remembers what it was made from."""

    message: str
    many: str
    number: int | None
    values: Mapping[str, Any]

    __slots__ = ("many", "message", "number", "values")

    def in_language(self, translate: Translate, translate_several: TranslateSeveral) -> str:
        """Return the text translated; values that are texts are translated as well."""
        if self.number is None:
            found = translate(self.message)
        else:
            found = translate_several(self.message, self.many, self.number)
        return _filled(found, {
            name: value.in_language(translate, translate_several)
            if isinstance(value, Text) else value for name, value in self.values.items()
        })  # fmt: skip


def _filled(message: str, values: Mapping[str, Any]) -> str:
    return message % values if values else message


def _made(english: str, message: str, many: str, number: int | None, values: Any) -> Text:
    text = Text(english)
    text.message, text.many, text.number, text.values = message, many, number, values
    return text


def _(message: str, **values: Any) -> Text:
    """Mark a text; ``values`` fill its ``%(name)s``. Without values a ``%`` is just one."""
    return _made(_filled(message, values), message, "", None, values)


def several(one: str, many: str, number: int, **values: Any) -> Text:
    """Mark a text that depends on a number, which is ``%(n)s`` in it."""
    filled = {"n": number, **values}
    return _made(_filled(one if number == 1 else many, filled), one, many, number, filled)
