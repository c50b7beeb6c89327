"""/debug: how the server is, for people who look before they read; and as JSON.

One page that needs nothing else: no script, no style or picture from anywhere. Everything in it is
escaped, and the browser is told to run nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Final

from starlette.responses import Response

from btreecache.encoding.go_json import json_bytes
from btreecache.features import GATES
from btreecache.server.caches import Caches, ResourceCache
from btreecache.server.counts import RequestCounts
from btreecache.server.overload import VALUE_BYTES, Overload

Document = dict[str, object]

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}

_STYLE: Final = (
    "body{font:14px system-ui,sans-serif;margin:2em}"
    "table{border-collapse:collapse;margin:0 0 2em}"
    "td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc;vertical-align:top}"
    "td.number{text-align:right;font-variant-numeric:tabular-nums}"
)


class Debug:
    """The state of a server, as it is when it is asked. Any thread; O(caches, what changed)."""

    def __init__(self, caches: Caches, requests: RequestCounts, overload: Overload) -> None:
        self._caches = caches
        self._requests = requests
        self._overload = overload

    def document(self) -> Document:
        """Everything that the page shows."""
        watches = self._watches()
        caches = self._caches
        blocks, turns = caches.blocks.stats(), self._overload.turns
        return {
            "server": {
                "version": version("btreecache"),
                "process": os.getpid(),
                "resident_bytes": _resident_bytes(),
                "compact_revision": caches.compact_revision,
                "compressed_runs": blocks.blocks,
                "compressed_bytes": blocks.used_bytes,
                "compressed_budget_bytes": caches.blocks.budget_bytes,
            },
            "load": {
                "requests": sum(self._requests.under_way.values()) - sum(watches.values()),
                "watches": sum(watches.values()),
                "lists_running": turns.running,
                "lists_bytes": turns.running_bytes,
                "lists_waiting": turns.waiting,
                "refused": self._overload.rejected,
            },
            "caches": [_cache(one, watches) for one in caches.begun()],
            "features": {gate.name: caches.features.enabled(gate.name) for gate in GATES},
        }

    def _watches(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for asked, count in list(self._requests.under_way.items()):
            if asked.lasts:
                name = asked.group, asked.resource
                found[name] = found.get(name, 0) + count
        return found

    def answer(self, output: str) -> Response:
        """The page; for `json` the document."""
        document = self.document()
        if output == "json":
            return Response(json_bytes(document, indent=2), 200, _HEADERS, "application/json")
        return Response(page(document), 200, _HEADERS, "text/html; charset=utf-8")


def _cache(one: ResourceCache, watches: Mapping[tuple[str, str], int]) -> Document:
    cache, stats = one.cache, one.cache.stats()
    window, trouble = cache.state.window, one.follower.trouble
    name = one.resource.group, one.resource.plural
    return {
        "resource": one.resource.dotted,
        "state": "ready" if one.ready else "resynchronising" if one.filled else "not filled",
        "trouble": str(trouble) if trouble else "",
        "heard_s_ago": round(cache.age_s, 3),
        "objects": stats.elements,
        "objects_bytes": window.newest.aggregate(VALUE_BYTES) if window else 0,
        "unreadable": len(cache.unreadable),
        "oldest": stats.oldest,
        "newest": stats.current,
        "revisions": stats.snapshots,
        "history_bytes": stats.retained_bytes,
        "history_s": round(stats.history_s, 3),
        "watches": watches.get(name, 0),
        "events": stats.applied_events,
        "lists": stats.replacements,
        "feed_faults": stats.feed_faults,
        "archive_lag": stats.current - cache.durable_revision if cache.archive else None,
    }


def _resident_bytes() -> int | None:
    """What the process has in memory; None where the system doesn't say."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def page(document: Document) -> str:
    """The document as HTML."""
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>btreecache</title>'
        f"<style>{_STYLE}</style></head><body><h1>btreecache serve</h1>"
    ]
    for title, section in document.items():
        parts.append(f"<h2>{escape(title)}</h2><table>")
        parts += _rows(section)
        parts.append("</table>")
    parts.append('<p><a href="?output=json">The same as JSON</a></p></body></html>')
    return "\n".join(parts)


def _rows(section: object) -> Iterator[str]:
    """A list of documents has a row for each, one document a row for each member."""
    if isinstance(section, dict):
        for name, value in section.items():
            yield f"<tr><th>{_text(name)}</th>{_cell(name, value)}</tr>"
    elif isinstance(section, list) and section:
        yield "<tr>" + "".join(f"<th>{_text(name)}</th>" for name in section[0]) + "</tr>"
        for row in section:
            yield "<tr>" + "".join(_cell(name, value) for name, value in row.items()) + "</tr>"


def _text(name: str) -> str:
    return escape(name.removesuffix("_bytes").replace("_", " "))


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return f"<td>{'' if value is None else 'on' if value else 'off'}</td>"
    if isinstance(value, int | float):
        shown = _size(value) if name.endswith("_bytes") else f"{value:,}"
        return f'<td class="number">{shown}</td>'
    return f"<td>{escape(str(value))}</td>"


def _size(count: float) -> str:
    if count < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:,.1f} {unit}"
    return f"{count / 1024:,.1f} GiB"
