"""Health: `/livez`, `/readyz`, `/healthz` and their single checks, as API servers say them. Pure.

A check is a name and what is wrong, "" if nothing is. In plain text: who asks is a load balancer, a
kubelet or a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.responses import PlainTextResponse, Response

from btreecache.errors import quoted
from btreecache.server.refusals import UnknownPath

#: Of every answer: a check that was kept would say how it was.
HEADERS = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}

#: What every page checks: that this answers.
PING = "ping"

#: Why a check that fails does, by name.
Checks = Mapping[str, str]


def overall(page: str, checks: Checks, *, excluded: Iterable[str], verbose: bool) -> Response:
    """All checks of a page but the excluded ones; 500 if one fails. Says each if asked for, and if
    one fails. O(checks + excluded)."""
    leave_out = dict.fromkeys(excluded)
    lines, failed = [], False
    for name, problem in checks.items():
        if name in leave_out:
            lines.append(f"[+]{name} excluded: ok")
        elif problem:
            failed = True
            lines.append(f"[-]{name} failed: {problem}")
        else:
            lines.append(f"[+]{name} ok")
    unknown = [quoted(name) for name in leave_out if name not in checks]
    if unknown:
        said = ",".join(unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {said}")
    if not failed and not verbose:
        return PlainTextResponse("ok", headers=HEADERS)
    lines.append(f"{page} check {'failed' if failed else 'passed'}\n")
    return PlainTextResponse("\n".join(lines), 500 if failed else 200, HEADERS)


def single(checks: Checks, name: str) -> Response:
    """One check by name. Raises UnknownPath."""
    if name not in checks:
        raise UnknownPath
    if problem := checks[name]:
        return PlainTextResponse(f"internal server error: {problem}\n", 500, HEADERS)
    return PlainTextResponse("ok", headers=HEADERS)
