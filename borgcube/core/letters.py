"""Letters: what people are sent, as plain text and as HTML for mail programs. Pure.

A letter is data (title, lead, blocks), so that it can wait in the store. The HTML uses inline
styles and tables only, loads nothing from anywhere and runs nothing; every value is escaped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

from borgcube.core.untrusted import words

WIDTH = 76
GOOD, WARN, BAD, PLAIN = "good", "warn", "bad", ""
TONES = {"error": BAD, "warning": WARN, "info": PLAIN}
MAX_SUBJECT = 160
# Background and edge of a block, by tone; the words say the same.
COLOURS = {GOOD: ("#e9f6ee", "#1e7e45"), WARN: ("#fdf4e0", "#b7791f"),
           BAD: ("#fdecea", "#b3261e"), PLAIN: ("#f3f5f8", "#8896a8")}  # fmt: skip
FONT = "-apple-system,'Segoe UI',Roboto,'DejaVu Sans',Helvetica,Arial,sans-serif"


@dataclass(frozen=True)
class Block:
    """A part of a letter: a heading, paragraphs, a table (``head`` and ``rows``), a link."""

    heading: str = ""
    paragraphs: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    tone: str = PLAIN
    boxed: bool = False
    link: str = ""
    link_text: str = ""


@dataclass(frozen=True)
class Letter:
    """A whole letter. ``lead`` is the one sentence that matters most; ``subject`` is that of
    the mail."""

    title: str
    lead: str
    subject: str = ""
    tone: str = PLAIN
    blocks: tuple[Block, ...] = ()
    closing: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Letter:
        """Rebuild from :meth:`as_data` or from JSON of it."""
        blocks = tuple(
            Block(**{
                **block, "paragraphs": tuple(block["paragraphs"]), "head": tuple(block["head"]),
                "rows": tuple(tuple(row) for row in block["rows"]),
            })
            for block in data["blocks"]
        )  # fmt: skip
        return cls(**{**data, "blocks": blocks})


def one_line(value: object, limit: int = MAX_SUBJECT) -> str:
    """Return text as one harmless line, fit for a header."""
    return words(" ".join(str(value).split()), limit=limit)


def local(at: str, zone: str = "UTC") -> str:
    """Return an ISO time in a zone, to the minute: ``2026-11-25 07:00 CET``."""
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return "-"
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M %Z}"


# Plain text


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    every = [tuple(head), *rows] if head else list(rows)
    widths = [max(len(row[i]) for row in every if i < len(row)) for i in range(len(every[0]))]
    lines = []
    for number, row in enumerate(every):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append(("  " + "  ".join(cells)).rstrip())
        if head and number == 0:
            lines.append("  " + "  ".join("-" * width for width in widths))
    return lines


def as_text(letter: Letter) -> str:
    """Return the letter as plain text."""
    parts = [_wrapped(letter.lead)]
    for block in letter.blocks:
        lines: list[str] = []
        if block.heading:
            lines += [block.heading, ("-" if block.boxed else "=") * len(block.heading)]
        lines += [_wrapped(paragraph) for paragraph in block.paragraphs]
        if block.rows:
            lines += _text_table(block.head, block.rows)
        if block.link:
            lines.append(f"{block.link_text or 'More'}: {block.link}")
        parts.append("\n".join(lines))
    if letter.closing:
        parts.append("-- \n" + letter.closing)
    return "\n\n".join(parts) + "\n"


# HTML


def _cell(text: str, *, head: bool = False) -> str:
    tag = "th" if head else "td"
    look = "color:#5b6878;font-weight:600;" if head else ""
    return (
        f'<{tag} align="left" style="{look}padding:6px 14px 6px 0;border-bottom:1px solid '
        f'#e3e8ee;font-size:14px;vertical-align:top;">{escape(text)}</{tag}>'
    )


def _html_table(block: Block) -> str:
    head = "".join(_cell(text, head=True) for text in block.head)
    rows = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in block.rows)
    return (
        '<table cellpadding="0" cellspacing="0" style="border-collapse:collapse;width:100%;'
        f'margin:6px 0 2px;">{f"<tr>{head}</tr>" if head else ""}{rows}</table>'
    )


def _html_block(block: Block) -> str:
    background, edge = COLOURS.get(block.tone, COLOURS[PLAIN])
    size = 15 if block.boxed else 17
    inner = ""
    if block.heading:
        inner += (f'<p style="margin:0 0 6px;font-size:{size}px;font-weight:700;">'
                  f"{escape(block.heading)}</p>")  # fmt: skip
    inner += "".join(
        f'<p style="margin:0 0 6px;font-size:15px;line-height:1.5;">{escape(text)}</p>'
        for text in block.paragraphs
    )
    if block.rows:
        inner += _html_table(block)
    if block.link:
        inner += (
            f'<p style="margin:6px 0 0;font-size:14px;"><a style="color:#1b5fb4;" '
            f'href="{escape(block.link)}">{escape(block.link_text or "More")}</a></p>'
        )
    if block.boxed:
        look = (f"background:{background};border-left:4px solid {edge};border-radius:6px;"
                "padding:12px 16px;")  # fmt: skip
    else:
        look = "padding:8px 0 0;"
    return f'<div style="{look}margin:0 0 14px;">{inner}</div>'


def as_html(letter: Letter) -> str:
    """Return the letter as a complete HTML document."""
    background, edge = COLOURS.get(letter.tone, COLOURS[PLAIN])
    blocks = "".join(_html_block(block) for block in letter.blocks)
    closing = "<br>".join(escape(line) for line in letter.closing.splitlines())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(letter.title)}</title></head>"
        f'<body style="margin:0;padding:0;background:#eef1f5;color:#1b2430;font-family:{FONT};">'
        '<table role="presentation" width="100%" cellpadding="0" cellspacing="0">'
        '<tr><td align="center" style="padding:20px 10px;">'
        '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" '
        'style="max-width:640px;background:#ffffff;border-radius:10px;'
        'border:1px solid #dfe5ec;"><tr><td align="left" style="padding:22px 24px;">'
        f'<p style="margin:0 0 12px;font-size:13px;color:#5b6878;">{escape(letter.title)}</p>'
        f'<div style="background:{background};border-left:5px solid {edge};border-radius:6px;'
        'padding:14px 18px;margin:0 0 18px;"><p style="margin:0;font-size:18px;line-height:1.4;'
        f'font-weight:700;">{escape(letter.lead)}</p></div>{blocks}'
        '<p style="margin:14px 0 0;padding:12px 0 0;border-top:1px solid #e3e8ee;font-size:12px;'
        f'line-height:1.5;color:#5b6878;">{closing}</p>'
        "</td></tr></table></td></tr></table></body></html>"
    )
