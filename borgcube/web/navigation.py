"""The navigation: the pages that plugins registered and this user may see, by section."""

from __future__ import annotations

from typing import Any

from borgcube.core.texts import _

SECTIONS = ("", _("Backup"), _("Server"), _("Access"))


def navigation(request: Any) -> list[dict[str, Any]]:
    """Return sections with their entries, each with title, icon, path and whether it is open."""
    identity = request.identity
    if identity is None:
        return []
    here = request.path_info.strip("/").partition("/")[0]
    sections: dict[str, list[Any]] = {name: [] for name in SECTIONS}
    sections[""].append({"title": _("Dashboard"), "icon": "home", "path": request.path_to(""),
                         "here": here == ""})  # fmt: skip
    pages = request.plugins.registered["register_pages"].values()
    for page in sorted(pages, key=lambda page: (page.order, page.title)):
        if page.hidden or not identity.may(page.permission):
            continue
        sections.setdefault(page.section, []).append({
            "title": page.title, "icon": page.icon, "path": request.path_to(page.name),
            "here": here == page.name,
        })  # fmt: skip
    return [{"title": name, "entries": entries} for name, entries in sections.items() if entries]
