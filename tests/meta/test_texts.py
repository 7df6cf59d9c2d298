"""Every English text of the console is marked for translation and in the catalog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from borgcube.testing import barewords, catalog
from borgcube.web.language import SCRIPT_WORDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "borgcube"
TEMPLATES = sorted([
    *PACKAGE.rglob("*.jinja2"),
    *(ROOT / "plugins-contrib").glob("*/borgcube_*/templates/*.jinja2"),
])  # fmt: skip
MODULES = sorted([
    *(PACKAGE / "web").glob("*.py"), *(PACKAGE / "plugins" / "console").glob("*.py"),
    PACKAGE / "core" / "forms.py", PACKAGE / "core" / "access.py",
    *(ROOT / "plugins-contrib").glob("*/borgcube_*/__init__.py"),
])  # fmt: skip
# The console cannot show a page yet, or no more, when these are said.
NOT_ON_A_PAGE = {"service.py", "settings.py", "language.py", "asgi.py", "outside.py"}
SCRIPTS = sorted((PACKAGE / "web" / "static").glob("*.js"))


def test_the_catalog_is_current() -> None:
    """If not: python -m borgcube.testing.catalog"""
    place = catalog.locale_of(PACKAGE)
    now = catalog.written(catalog.collected(PACKAGE))
    assert (place / "borgcube.pot").read_text("utf-8") == now


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_says_nothing_that_is_not_marked(path: Path) -> None:
    assert barewords.in_template(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["<p>Nothing here</p>", '<b title="Close it">x</b>', '{{ ui.notice("bad", "It failed") }}',
     '{{ "on" if x else "off" }}', '{{ name ~ " is gone" }}', "<h1>Job {{ id }}</h1>",
     '{% if x %}<i>yes</i>{% endif %}', '{{ _("right") }} and wrong',
     '{{ ui.figure(3, "files") }}', '{{ x or "unknown" }}', '<a title="{{ "Go" }}">1</a>',
     '{% call ui.notice("bad", "It failed") %}{% endcall %}', "{% set x = 'Never again' %}"],
)  # fmt: skip
def test_unmarked_words_of_a_template_are_found(source: str) -> None:
    assert barewords.in_template(source) != []


@pytest.mark.parametrize(
    "source",
    ['<p class="small soft">{{ _("Nothing here") }}</p>', "<dt>BorgCube</dt><dd>{{ x }}</dd>",
     "{% trans %}Nothing {{ here }}{% endtrans %}", '<b class="{{ "good" if x else "bad" }}">1</b>',
     '{{ ui.notice("bad", _("It failed"), "", "cross") }}', "{# Words for us #}",
     '{% set x = {"two words": _("Two words")} %}',
     '{% if x == "some words" %}{{ x|replace("_", " ") }}{% endif %}', "&nbsp;&middot;",
     '{{ ngettext("%(n)s file", "%(n)s files", n, n=n) }}'],
)  # fmt: skip
def test_what_is_marked_or_no_text_is_left_alone(source: str) -> None:
    assert barewords.in_template(source) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_page_of_python_says_nothing_that_is_not_marked(path: Path) -> None:
    if path.name not in NOT_ON_A_PAGE:
        assert barewords.in_python(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ['x = "This is shown."', 'Field("name", "Name")', 'Field("a", _("A"), help="more")',
     'f(title="Gone")', 'x = f"{n} of them. "'],
)  # fmt: skip
def test_unmarked_words_of_python_are_found(source: str) -> None:
    assert barewords.in_python(source) != []


def spoken(source: str) -> list[str]:
    """Return the literals of a script that read like words for people."""
    code = re.sub(r"^\s*//.*$", "", source, flags=re.M)
    literals = re.findall(r'"([^"\n]*)"|`([^`]*)`', code)
    plain = [re.sub(r"\$\{[^}]*\}", "0", one) for pair in literals for one in pair]
    return [one for one in plain
            if re.match(r"[A-Z][a-z]+( |$)|[a-z]+ ([a-z]+|0)", one)
            and not one.startswith(("input", "Content"))]  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_has_its_words_from_the_server(path: Path) -> None:
    source = path.read_text("utf-8")
    assert [one for one in spoken(source) if one != "Escape"] == []
    asked = set(re.findall(r'\bsay\("([\w-]+)"', source))
    assert asked <= set(SCRIPT_WORDS)


def test_words_of_a_script_are_found() -> None:
    assert spoken('x.textContent = "Copied";') and spoken("y = `about ${n} left`;")


def test_a_language_is_begun_filled_in_and_compiled(tmp_path: Path) -> None:
    (tmp_path / "page.jinja2").write_text('{{ _("%(n)s of them", n=1) }}')
    path = catalog.begin(tmp_path, "de")
    text = path.read_text("utf-8")
    path.write_text(text.replace('msgstr ""\n', 'msgstr "%(m)s davon"\n').replace(
        'msgid ""\nmsgstr "%(m)s davon"', 'msgid ""\nmsgstr ""'))  # fmt: skip
    with pytest.raises(SystemExit, match="of them"):
        catalog.compile_all(tmp_path)
    path.write_text(path.read_text("utf-8").replace("%(m)s", "%(n)s"))
    catalog.compile_all(tmp_path)
    assert b"davon" in path.with_suffix(".mo").read_bytes()
    (tmp_path / "page.jinja2").write_text('{{ _("%(n)s of them", n=1) }}{{ _("New") }}')
    catalog.update(tmp_path)
    assert "davon" in path.read_text("utf-8") and 'msgid "New"' in path.read_text("utf-8")
