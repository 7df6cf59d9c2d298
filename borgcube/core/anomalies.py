"""What stands out in a new archive, compared with the history of its plan. Pure.

Called by the daemon when it records an archive; knows neither store nor engine. Figures are
those of ``Archive.stats``; one that is missing on either side is not judged. Robust
statistics: the median and the median absolute deviation (MAD), so that one odd archive in
the past neither hides the next one nor makes all others look odd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

# The standard deviation of a normal distribution is so many MADs.
SIGMA_PER_MAD = 1.4826
HISTORY = 30  # archives that are looked at
LEAST_HISTORY = 5  # below it, only what needs no statistics is judged
MIB = 1 << 20
NEARLY_EMPTY_SHARE = 0.05
LEAST_FILES = 20
LEAST_GROWTH_BYTES = 10 * MIB
LEAST_NEW_BYTES = 64 * MIB
LEAST_NEW_SHARE = 0.1
CHANGED_SHARE = 0.5
INCOMPRESSIBLE_SHARE = 0.9
USUAL_INCOMPRESSIBLE = 0.5
LEAST_FRESH_BYTES = MIB
MOST_PATHS = 20


@dataclass(frozen=True)
class Suspicion:
    """One thing that stands out: a stable ``kind``, the sentence, and the figures behind it.

    ``usual`` is the median of the history, of ``seen`` archives.
    """

    kind: str
    words: str
    value: float = 0
    usual: float = 0
    seen: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Past:
    """An older archive's figures; ``accepted`` when a person looked at it and said it is well."""

    stats: Mapping[str, Any]
    accepted: bool = False


def number(stats: Mapping[str, Any], name: str) -> float | None:
    """Return a figure that is a number and not negative, or None."""
    value = stats.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return float(value)


def changed_share(stats: Mapping[str, Any]) -> float | None:
    """Return the share of files with new content, 0 to 1."""
    files, changed = number(stats, "files"), number(stats, "changed_files")
    return None if not files or changed is None else min(1.0, changed / files)


def incompressible_share(stats: Mapping[str, Any]) -> float | None:
    """Return how much of the new content no compression makes smaller, 0 to 1; None when
    there is too little to say."""
    fresh, hard = number(stats, "fresh_size"), number(stats, "incompressible_size")
    if fresh is None or hard is None or fresh < LEAST_FRESH_BYTES:
        return None
    return min(1.0, hard / fresh)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the robust standard deviation of at least one value."""
    middle = median(values)
    return middle, SIGMA_PER_MAD * median(abs(value - middle) for value in values)


def bytes_in_words(count: float) -> str:
    """Return bytes with a binary unit, such as ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def judge(stats: Mapping[str, Any], history: Sequence[Past]) -> list[Suspicion]:
    """Return what stands out in an archive, worst first; empty when nothing does.

    ``history`` are older archives of the same plan, newest first, without those that stood
    out themselves and were not accepted. What is like an accepted one does not stand out.
    """
    past = list(history[:HISTORY])
    found = [*_empty(stats, past), *_paths(stats, past)]
    kinds = {one.kind for one in found}
    if len(past) >= LEAST_HISTORY:
        if not kinds & {"empty", "nearly-empty"}:
            found += _levels(stats, past)
        found += _new_data(stats, past)
        found += _shares(stats, past)
    return found


def _empty(stats: Mapping[str, Any], past: Sequence[Past]) -> list[Suspicion]:
    files = number(stats, "files")
    if files is None:
        return []
    known = _known(past, lambda each: number(each, "files"))
    usual = median(known) if known else 0.0
    accepted = [number(one.stats, "files") for one in past if one.accepted]
    if files == 0 and 0 not in accepted and (usual > 0 or not known):
        words = "It holds no file at all"
        words += f", usually {_count(usual)}." if known else "."
        return [Suspicion("empty", words, 0, usual, len(known))]
    if usual >= LEAST_FILES and files < usual * NEARLY_EMPTY_SHARE \
            and not _like_accepted(files, past, lambda each: number(each, "files")):  # fmt: skip
        return [Suspicion(
            "nearly-empty",
            f"It is nearly empty: {_count(files)} files, usually {_count(usual)}.",
            files, usual, len(known),
        )]  # fmt: skip
    return []


def _paths(stats: Mapping[str, Any], past: Sequence[Past]) -> list[Suspicion]:
    found = []
    for path in _texts(stats.get("missing_paths"))[:MOST_PATHS]:
        if not any(one.accepted and path in _texts(one.stats.get("missing_paths"))
                   for one in past):  # fmt: skip
            found.append(Suspicion(
                "missing-path", f"{path} of the plan was not there.", 0, 1, len(past)
            ))  # fmt: skip
    here = _roots(stats)
    for path, files in list(here.items())[:MOST_PATHS]:
        if files or path in _texts(stats.get("missing_paths")):
            continue
        known = [roots[path] for one in past if path in (roots := _roots(one.stats))]
        usual = median(known) if known else 0.0
        accepted = any(one.accepted and _roots(one.stats).get(path) == 0 for one in past)
        if usual > 0 and not accepted:
            found.append(Suspicion(
                "empty-path",
                f"{path} holds no file, usually {_count(usual)}. Is something not mounted?",
                0, usual, len(known),
            ))  # fmt: skip
    return found


def _levels(stats: Mapping[str, Any], past: Sequence[Past]) -> list[Suspicion]:
    found = []
    for name, kind, least, what in (
        ("files", "files", float(LEAST_FILES), _count),
        ("size", "size", float(LEAST_GROWTH_BYTES), bytes_in_words),
    ):

        def of(each: Mapping[str, Any], name: str = name) -> float | None:
            return number(each, name)

        value, known = of(stats), _known(past, of)
        if value is None or len(known) < LEAST_HISTORY or _like_accepted(value, past, of):
            continue
        usual, sigma = spread(known)
        if abs(value - usual) < least:
            continue
        noun = "files" if name == "files" else "of data"
        if value < usual - max(6 * sigma, usual / 2):
            found.append(Suspicion(
                f"fewer-{kind}" if name == "files" else "smaller",
                f"It has {what(value)} {noun}, usually {what(usual)}.",
                value, usual, len(known),
            ))  # fmt: skip
        elif value > usual + max(6 * sigma, usual):
            found.append(Suspicion(
                f"more-{kind}" if name == "files" else "larger",
                f"It has {what(value)} {noun}, usually {what(usual)}.",
                value, usual, len(known),
            ))  # fmt: skip
    return found


def _new_data(stats: Mapping[str, Any], past: Sequence[Past]) -> list[Suspicion]:
    def of(each: Mapping[str, Any]) -> float | None:
        return number(each, "new_size")

    value, known, whole = of(stats), _known(past, of), number(stats, "stored_size") or 0.0
    if value is None or len(known) < LEAST_HISTORY or _like_accepted(value, past, of):
        return []
    usual, sigma = spread(known)
    if value < LEAST_NEW_BYTES or value < LEAST_NEW_SHARE * whole \
            or value <= max(usual + 8 * sigma, 5 * usual):  # fmt: skip
        return []
    words = f"{bytes_in_words(value)} were stored anew, usually {bytes_in_words(usual)}."
    return [Suspicion("new-data", words, value, usual, len(known))]


def _shares(stats: Mapping[str, Any], past: Sequence[Past]) -> list[Suspicion]:
    found = []
    value, known = changed_share(stats), _known(past, changed_share)
    files = number(stats, "files") or 0.0
    if value is not None and len(known) >= LEAST_HISTORY and files >= LEAST_FILES \
            and not _like_accepted(value, past, changed_share):  # fmt: skip
        usual, sigma = spread(known)
        if value > max(CHANGED_SHARE, usual + 8 * sigma) and value > 2 * usual:
            found.append(Suspicion(
                "many-changed",
                f"{_percent(value)} of its files have new content, usually {_percent(usual)}.",
                value, usual, len(known),
            ))  # fmt: skip
    value, known = incompressible_share(stats), _known(past, incompressible_share)
    fresh, size = number(stats, "fresh_size") or 0.0, number(stats, "size") or 0.0
    # A plan of photographs or of encrypted files is always like that; most plans never are.
    # Without new data in the past there is no usual share: then it counts with other signs.
    usual = median(known) if known else 0.0
    if value is not None and value > INCOMPRESSIBLE_SHARE and usual < USUAL_INCOMPRESSIBLE \
            and fresh > LEAST_NEW_SHARE * size and (known or found) \
            and not _like_accepted(value, past, incompressible_share):  # fmt: skip
        tail = f", usually {_percent(usual)}" if known else ""
        found.append(Suspicion(
            "incompressible",
            f"{_percent(value)} of its {bytes_in_words(fresh)} of new content cannot be "
            f"compressed{tail}: so does encrypted data look.",
            value, usual, len(known),
        ))  # fmt: skip
    return found


Measure = Callable[[Mapping[str, Any]], "float | None"]


def _known(past: Sequence[Past], of: Measure) -> list[float]:
    return [value for one in past if (value := of(one.stats)) is not None]


def _like_accepted(value: float, past: Sequence[Past], of: Measure) -> bool:
    """Tell whether a person accepted an archive with a value within a factor of two."""
    for one in past:
        if one.accepted and (other := of(one.stats)) is not None:
            if min(value, other) * 2 >= max(value, other):
                return True
    return False


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _roots(stats: Mapping[str, Any]) -> dict[str, float]:
    """Return path of the plan -> files found below it."""
    roots = stats.get("roots")
    if not isinstance(roots, Mapping):
        return {}
    return {str(path): value for path in roots if (value := number(roots, path)) is not None}
