"""The language of a page: which there are, which one a reader gets, and translating into it.

Texts are marked with ``core.texts`` in Python and with ``_()`` or ``{% trans %}`` in
templates; templates translate by themselves whatever marked text they print. Catalogs are
gettext ``.mo`` files of the domain ``borgcube``, in ``locale/`` here, in the directory that
``console.translations`` names, and wherever a plugin's pages add one
(``config.add_translation_dirs``). English needs no catalog.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import pass_eval_context
from markupsafe import Markup
from pyramid.interfaces import ITranslationDirectories
from pyramid.threadlocal import get_current_request

from borgcube.core.errors import ConfigurationError
from borgcube.core.texts import Text, _

DOMAIN = "borgcube"
ENGLISH = "en"
COOKIE = "language"
HERE = Path(__file__).with_name("locale")
# What the scripts say by themselves; times they take from the browser's own words.
SCRIPT_WORDS: Mapping[str, Text] = {
    "copy": _("Copy"), "copied": _("Copied"), "just-now": _("just now"),
    "live-on": _("live"), "live-off": _("reconnecting"), "live-ended": _("logged out"),
    "left": _("about %(time)s left"),
    "looked-through": _("%(n)s of %(total)s archives looked through"),
    "counted-anew": _("references of %(n)s of %(total)s archives counted"),
    "archives-done": _("%(n)s of %(total)s archives done"),
    "items": _("%(n)s items written anew"),
}  # fmt: skip
# Each catalog calls its own language by its name here.
OWN_NAME = _("English")


def _translate(message: str) -> str:
    request = get_current_request()
    if request is None or not message or request.locale_name == ENGLISH:
        return message
    return str(request.localizer.translate(message, domain=DOMAIN))


def _translate_several(one: str, many: str, number: int) -> str:
    request = get_current_request()
    if request is None or request.locale_name == ENGLISH:
        return one if number == 1 else many
    return str(request.localizer.pluralize(one, many, number, domain=DOMAIN))


def translated(value: Any) -> Any:
    """Return a marked text in the language of the present request; anything else as it is."""
    if isinstance(value, Text):
        return value.in_language(_translate, _translate_several)
    return value


def script_words(phases: Mapping[str, Any]) -> str:
    """Return the scripts' words as JSON, the names of phases among them."""
    named = {f"phase-{name}": words for name, words in phases.items()}
    return json.dumps(
        {name: translated(words) for name, words in {**SCRIPT_WORDS, **named}.items()}
    )


@pass_eval_context
def _gettext(context: Any, message: str, /, **values: Any) -> str:
    return _shown(context, _translate(message), values)


@pass_eval_context
def _ngettext(context: Any, one: str, many: str, number: int, /, **values: Any) -> str:
    return _shown(context, _translate_several(one, many, number), {"num": number, **values})


def _shown(context: Any, message: str, values: Mapping[str, Any]) -> str:
    # As Jinja's new style has it: a translation may hold markup, its values are escaped.
    wrap: type[str] = Markup if context.autoescape else str
    filled: str = wrap(message) % {name: translated(value) for name, value in values.items()}
    return filled


def languages(directories: list[str]) -> list[str]:
    """Return the locales that have a catalog, English first."""
    found = {
        path.parent.parent.name
        for directory in directories
        for path in Path(directory).glob(f"*/LC_MESSAGES/{DOMAIN}.mo")
    }
    return [ENGLISH, *sorted(found - {ENGLISH})]


def negotiate(request: Any) -> str:
    """Return the locale of a request: what was chosen, else what the browser wants."""
    known = request.registry.console_languages
    chosen: str = request.cookies.get(COOKIE, "")
    if chosen in known:
        return chosen
    tags: dict[str, str] = {name.replace("_", "-").lower(): name for name in known}
    wanted = str(request.accept_language.lookup(list(tags), default=ENGLISH))
    return tags[wanted.lower()]


def own_names(request: Any) -> list[tuple[str, str]]:
    """Return the languages to choose from, each by its own name."""
    from pyramid.i18n import make_localizer

    directories = request.registry.queryUtility(ITranslationDirectories, default=[])
    return [
        (name, str(make_localizer(name, directories).translate(str(OWN_NAME), domain=DOMAIN)))
        for name in request.registry.console_languages
    ]


def set_up(config: Any, *, directory: str) -> None:
    """Let pages find their language; ``directory`` has further catalogs, if it is not empty."""
    if directory and not Path(directory).is_dir():
        raise ConfigurationError(
            f"console.translations in borgcube.toml: there is no directory {directory}."
        )
    # What comes later wins.
    config.add_translation_dirs(str(HERE), *([directory] if directory else []))
    config.set_locale_negotiator(negotiate)
    config.add_request_method(lambda _request, text: translated(text), "translated")
    config.add_request_method(own_names, "languages", reify=True)


def find_languages(config: Any) -> None:
    """Look which catalogs there are, when all plugins have added theirs."""
    directories = config.registry.queryUtility(ITranslationDirectories, default=[])
    config.registry.console_languages = languages(directories)


def teach(environment: Any) -> None:
    """Make a Jinja environment translate what is marked."""
    environment.newstyle_gettext = True
    environment.globals.update(gettext=_gettext, ngettext=_ngettext)
    environment.filters["translated"] = translated
