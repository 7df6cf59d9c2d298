"""The catalog of texts: collected from the code, begun for a language, compiled, disguised.

``python -m borgcube.testing.catalog`` brings ``borgcube/web/locale/borgcube.pot`` up to
date and merges it into the languages that there are; ``... new LANGUAGE`` begins one;
``... compile`` makes the ``.mo`` files that the console reads. A plugin does the same for
itself with ``--package DIRECTORY``. The disguise is English with accents between marks: a
page that is shown in it has an unmarked text wherever plain English is left. It needs Babel,
of the test extra.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel import Locale
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

DOMAIN = "borgcube"
PACKAGE = Path(__file__).parents[1]
SKIPPED = ("testing",)
KEYWORDS: Any = {"_": None, "gettext": None, "ngettext": (1, 2), "several": (1, 2)}
METHODS = [("**.py", "python"), ("**.jinja2", "jinja2")]
DISGUISE = str.maketrans("aeiouyAEIOUYcnsz", "áéíóúýÁÉÍÓÚÝçñšž")
LEFT, RIGHT = "⟦", "⟧"


def locale_of(package: Path) -> Path:
    """Return where a package keeps its catalogs."""
    inside = package / "web" / "locale"
    return inside if inside.parent.is_dir() else package / "locale"


def collected(package: Path) -> Catalog:
    """Return all marked texts of a package, by file and then by place."""
    catalog = Catalog(project="BorgCube", fuzzy=False, charset="utf-8")
    found = extract_from_dir(
        str(package), METHODS, {"**.jinja2": {"newstyle_gettext": "true", "silent": "false"}},
        keywords=KEYWORDS, comment_tags=("translators:",), strip_comment_tags=True,
    )  # fmt: skip
    for name, _line, message, comments, context in found:
        if Path(name).parts[0] not in SKIPPED:
            # Without numbers of lines: they change more often than the texts.
            catalog.add(message, locations=[(name, 0)], auto_comments=comments, context=context)
    return catalog


def written(catalog: Catalog) -> str:
    """Return a catalog as a file, without anything that changes by itself."""
    out = io.BytesIO()
    write_po(out, catalog, omit_header=True, include_lineno=False, width=96, sort_output=True)
    return f"{_header(catalog)}\n{out.getvalue().decode('utf-8')}"


def _header(catalog: Catalog) -> str:
    plural = str(catalog.plural_forms) if catalog.locale else ""
    lines = ["MIME-Version: 1.0", "Content-Type: text/plain; charset=UTF-8",
             "Content-Transfer-Encoding: 8bit"]  # fmt: skip
    if catalog.locale:
        lines += [f"Language: {catalog.locale}", f"Plural-Forms: {plural}"]
    quoted = "".join(f'"{line}\\n"\n' for line in lines)
    return f'# The texts of BorgCube\'s console.\nmsgid ""\nmsgstr ""\n{quoted}'


def known(place: Path) -> Iterator[tuple[Path, Catalog]]:
    """Yield the languages of a directory with their files."""
    for path in sorted(place.glob(f"*/LC_MESSAGES/{DOMAIN}.po")):
        with path.open("rb") as file:
            yield path, read_po(file, locale=path.parent.parent.name)


def update(package: Path) -> None:
    """Write the template anew and merge it into every language."""
    place = locale_of(package)
    place.mkdir(exist_ok=True)
    template = collected(package)
    (place / f"{DOMAIN}.pot").write_text(written(template), encoding="utf-8")
    for path, catalog in known(place):
        catalog.update(template)
        path.write_text(written(catalog), encoding="utf-8")


def begin(package: Path, language: str) -> Path:
    """Begin a language; returns its file, to be filled in."""
    path = locale_of(package) / language / "LC_MESSAGES" / f"{DOMAIN}.po"
    if path.exists():
        raise SystemExit(f"{path} exists already")
    catalog = collected(package)
    catalog.locale = Locale.parse(language)
    path.parent.mkdir(parents=True)
    path.write_text(written(catalog), encoding="utf-8")
    return path


def problems(catalog: Catalog) -> list[str]:
    """Return the translations whose ``%(name)s`` are not those of the text."""
    found = []
    for message in catalog:
        if message.id and message.string:
            # Babel raises for what Python could not fill in.
            found += [f"{message.id!r}: {error}" for error in message.check(catalog)]
    return found


def compile_all(package: Path) -> None:
    """Make the ``.mo`` files; refuses a translation that could not be filled in."""
    for path, catalog in known(locale_of(package)):
        if wrong := problems(catalog):
            raise SystemExit("\n".join([str(path), *wrong]))
        with path.with_suffix(".mo").open("wb") as out:
            write_mo(out, catalog)


def disguised(text: str) -> str:
    """Return a text with accents, longer, between marks; places for values stay."""
    parts = re.split(r"(%\(\w+\)s|%%|&\w+;)", text)
    accented = "".join(part if n % 2 else part.translate(DISGUISE) for n, part in enumerate(parts))
    return f"{LEFT}{accented} {'·' * (len(text) // 4)}{RIGHT}"


def disguise(package: Path, place: Path, language: str = "en_XA") -> None:
    """Write a catalog of a language that nobody speaks to a directory."""
    catalog = Catalog(locale=None, charset="utf-8", fuzzy=False)
    for message in collected(package):
        if isinstance(message.id, str):
            if message.id:
                catalog.add(message.id, disguised(message.id))
        else:
            catalog.add(message.id, tuple(disguised(text) for text in message.id))
    path = place / language / "LC_MESSAGES" / f"{DOMAIN}.mo"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        write_mo(out, catalog)


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m borgcube.testing.catalog")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the package's directory")
    parser.add_argument("what", nargs="?", choices=["update", "new", "compile"], default="update")
    parser.add_argument("language", nargs="?", default="")
    asked = parser.parse_args()
    if asked.what == "new":
        print(begin(asked.package, asked.language))
    else:
        {"update": update, "compile": compile_all}[asked.what](asked.package)


if __name__ == "__main__":
    main()
