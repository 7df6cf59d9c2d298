"""Words of a client on their way into causes, events, logs and terminals. Pure.

Whoever takes text from outside makes it harmless here, once, where it comes in.
"""

from __future__ import annotations

MAX_WORDS = 500


def escaped(text: str) -> str:
    """Return ``text`` with all that is not printed as one visible character as escapes.

    These are control, format and surrogate characters, and separators of lines and words
    other than the space: some readers begin a new line at them.
    """
    return "".join(
        char if char.isprintable()
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )  # fmt: skip


def words(value: object, *, limit: int = MAX_WORDS) -> str:
    """Return what a client said as one escaped line of at most ``limit`` characters."""
    text = escaped(str(value)[:limit])
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def last_words(data: bytes, *, limit: int = 300) -> str:
    """Return the end of what a client printed, as one escaped line of at most ``limit``
    characters."""
    text = data[-4 * limit :].decode("utf-8", "replace").strip()
    return words(text[-limit:], limit=limit)
