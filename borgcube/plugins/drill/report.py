"""The report of a restore drill: JSON for machines, HTML for an auditor.

Both are made from the same data. The HTML stands alone: no script, nothing from elsewhere;
every text that a client chose is escaped. Its last line has the SHA-256 of the JSON file,
which the daemon also writes into its journal.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borgcube import __version__
from borgcube.core import drills
from borgcube.core.anomalies import bytes_in_words
from borgcube.core.jobs import JobContext
from borgcube.core.untrusted import words

if TYPE_CHECKING:
    from borgcube.plugins.drill.drilling import Findings

# Below it, starting borg takes most of the time, and a rate says nothing.
LEAST_MEASURED = 256 << 20
FORMAT = "borgcube-drill-report-1"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { display: inline-block; padding: .2rem .7rem; border-radius: .3rem; color: #fff;
  font-weight: 600; background: #b3261e; }
.verdict.passed { background: #1d7a46; } .verdict.remarks { background: #8a5a00; }
dl { display: grid; grid-template-columns: 14rem 1fr; gap: .3rem 1rem; margin: 0; }
dt { color: #566173; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #dfe3ea;
  vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; white-space: nowrap; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: #566173; font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; } }
@media print { body { margin: 0; max-width: none; } }
"""


def data_of(context: JobContext, findings: Findings, *, ended: str) -> dict[str, Any]:
    """Return the report as plain JSON data."""
    order = context.order
    given = order.parameters
    rate = findings.size / findings.seconds if findings.seconds > 0 else 0.0
    return {
        "format": FORMAT,
        "result": findings.result,
        "began": findings.began,
        "ended": ended,
        "job": order.job_id,
        "server": order.server_id,
        "repository": {
            "name": order.repository.get("name", ""), "id": findings.repository_id,
        },
        "client": given["of_client"],
        "plan": given["plan"],
        "archive": {
            "name": given["archive"], "id": given["archive_id"], "start": given["start"],
            "files": findings.archive_files, "size": findings.archive_size,
        },
        "restored": {
            "what": "the whole archive" if findings.whole else "files drawn by lot",
            "files": findings.files, "size": findings.size,
            "seconds": round(findings.seconds, 3), "bytes_per_second": round(rate),
            "whole_archive_estimate_seconds":
                round(findings.archive_size / rate)
                if findings.size >= LEAST_MEASURED and not findings.whole and rate else None,
        },
        "canary": findings.canary or None,
        "problems": findings.problems,
        "remarks": findings.remarks,
        "files": [
            {
                "path": words(one.path, limit=4096), "size": one.size,
                "mode": f"{one.mode & 0o7777:04o}", "mtime_ns": one.mtime_ns,
                "sha256": one.sha256, "problems": one.problems,
            }
            for one in findings.shown
        ],
        "versions": {
            "borgcube": __version__, "borg": findings.borg,
            "python": platform.python_version(),
            # Not its release: owners of clients read this too.
            "system": f"{platform.system()} {platform.machine()}",
        },
    }  # fmt: skip


def write_report(context: JobContext, findings: Findings, *, ended: str) -> str:
    """Write both files and return the SHA-256 of the JSON one, in hex. Raises OSError."""
    data = data_of(context, findings, ended=ended)
    packed = json.dumps(data, indent=2).encode() + b"\n"
    sha256 = hashlib.sha256(packed).hexdigest()
    directory = drills.make_report_dir(context.home, context.order.job_id)
    _write(directory / drills.JSON_NAME, packed)
    _write(directory / drills.HTML_NAME, page_of(data, sha256=sha256).encode())
    return sha256


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return "unknown"


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _facts(pairs: list[tuple[str, object]]) -> str:
    return "<dl>" + "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in pairs if value
    ) + "</dl>"  # fmt: skip


def _listed(title: str, texts: list[str]) -> str:
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<h2>{escape(title)}</h2><ul>{items}</ul>"


def page_of(data: dict[str, Any], *, sha256: str) -> str:
    """Return the report as one HTML page."""
    restored, archive = data["restored"], data["archive"]
    verdict = {drills.PASSED: "passed", drills.REMARKS: "remarks"}.get(data["result"], "failed")
    said = drills.IN_WORDS[data["result"]]
    how = (
        "The files were restored to empty scratch space on this server by stock borg. Then each "
        "was read and compared with its archive: size, permissions, time of change, and the "
        "content, whose keyed hash (the chunk IDs that the client made when it was backed up) "
        "was computed again from the restored bytes."
    )
    rows = "".join(
        f"<tr><td><code>{escape(one['path'])}</code>"
        + "".join(f"<br><strong>{escape(why)}</strong>" for why in one["problems"])
        + f"</td><td class='number'>{escape(bytes_in_words(one['size']))}</td>"
        f"<td>{escape(one['mode'])}</td><td><code>{escape(one['sha256'])}</code></td></tr>"
        for one in data["files"]
    )
    left = restored["files"] - len(data["files"])
    note = f"<p>{left:,} more files were compared and are not listed.</p>" if left > 0 else ""
    estimate = restored["whole_archive_estimate_seconds"]
    body = [
        f"<h1>Restore drill: {escape(archive['name'])}</h1>",
        f"<p><span class='verdict {verdict}'>{escape(said.capitalize())}</span> "
        f"{restored['files']:,} files, {escape(bytes_in_words(restored['size']))}, restored in "
        f"{escape(_seconds(restored['seconds']))} and compared.</p>",
        _listed("Problems", data["problems"]),
        _listed("Remarks", data["remarks"]),
        "<h2>What was restored</h2>",
        _facts([
            ("Archive", archive["name"]), ("Archive ID", archive["id"]),
            ("Backed up", _moment(archive["start"])), ("Client", data["client"]),
            ("Plan", data["plan"]), ("Repository", data["repository"]["name"]),
            ("Repository ID", data["repository"]["id"]),
            ("The archive has", f"{archive['files']:,} files, {bytes_in_words(archive['size'])}"),
            ("Restored", f"{restored['what']}: {restored['files']:,} files, "
                         f"{bytes_in_words(restored['size'])}"),
        ]),
        "<h2>How, and how long it took</h2>", f"<p>{escape(how)}</p>",
        _facts([
            ("Begun", _moment(data["began"])), ("Ended", _moment(data["ended"])),
            ("Time to restore", _seconds(restored["seconds"])),
            ("Rate", f"{bytes_in_words(restored['bytes_per_second'])} a second"
                     if restored["bytes_per_second"] else ""),
            ("The whole archive", f"would take about {_seconds(estimate)} at this rate"
                                  if estimate else ""),
            ("Canary", f"{data['canary']['path']}, SHA-256 {data['canary']['sha256'] or 'none'}"
                       if data["canary"] else ""),
            ("Job", data["job"]), ("Server", data["server"]),
            *[(f"Version of {name}", value) for name, value in data["versions"].items()],
        ]),
        "<h2>Files</h2><table><thead><tr><th scope='col'>Path</th>"
        "<th scope='col' class='number'>Size</th><th scope='col'>Mode</th>"
        f"<th scope='col'>SHA-256 of the restored content</th></tr></thead><tbody>{rows}"
        f"</tbody></table>{note}",
        f"<footer>SHA-256 of this report's JSON file, also in the server's journal: "
        f"<code>{sha256}</code></footer>",
    ]  # fmt: skip
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Restore drill: {escape(archive['name'])}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )
