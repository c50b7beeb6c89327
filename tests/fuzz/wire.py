"""Malformed requests as raw bytes to a real server on loopback: `python -m tests.fuzz.wire`.

Broken request lines, headers, percent-encodings, huge values, duplicate parameters, unknown
methods, garbage in Accept, tokens, selectors. Nothing may come of them but documented statuses: no
5xx but 504 (a revision that is not yet), nothing in the log of errors, and no growth of memory. One
JSON line for each seed goes to a file outside git; seeds that it holds are not repeated, but for
those with violations.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import logging
import re
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import pytest

from btreecache import plan
from tests.server.world import World

DOCUMENTED = {200, 304, 400, 401, 403, 404, 405, 406, 410, 413, 414, 422, 429, 431, 504}
PATIENCE_S, CLIENTS, TOLD_MAX, GROWTH_MAX_MB = 2.0, 4, 20, 48.0

PATHS = (
    b"/api/v1/pods", b"/api/v1/pods", b"/api/v1/namespaces/a/pods", b"/api/v1/namespaces/a/pods/x",
    b"/apis", b"/api", b"/apis/apps/v1/deployments", b"/version", b"/openapi/v3", b"/readyz",
    b"/metrics", b"/",
)  # fmt: skip
NAMES = (
    b"resourceVersion", b"resourceVersionMatch", b"limit", b"continue", b"labelSelector",
    b"fieldSelector", b"timeoutSeconds", b"watch", b"allowWatchBookmarks", b"sendInitialEvents",
    b"pretty", b"includeObject",
)  # fmt: skip
VALUES = (
    b"", b"0", b"1", b"5", b"-1", b"999999999", b"18446744073709551616", b"true", b"Exact",
    b"NotOlderThan", b"a=b", b"a in (b,c", b"!a", b"metadata.name=x", b"spec.nodeName=n1",
    b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhIn0",
    b"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vYiJ9",
    b"1e309", b"NaN", "\u0661\u06f2".encode(), b"\x00", b"%",
)  # fmt: skip
ACCEPTS = (
    b"application/json", b"application/vnd.kubernetes.protobuf", b"application/yaml", b"*/*;q=",
    b"application/json;as=Table;g=meta.k8s.io;v=v1", b"application/json;q=1e9999", b";;;,,,=;q=-1",
    b"application/json;q=0.5;as=;g=;v=", b"a/b;c=\"", b"application/json" + b";x=y" * 500,
)  # fmt: skip
METHODS = (
    *(b"GET",) * 12, b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"get", b"X" * 300,
    b"G\x00T", b"",
)  # fmt: skip
HEADERS = (
    b"Host", b"Accept-Encoding", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect",
    b"Upgrade", b"If-None-Match", b"Authorization", b"Range", b"X", b"",
)  # fmt: skip


def request(rng: Random) -> bytes:
    """One request, mostly wrong somewhere."""
    method, path = rng.choice(METHODS), rng.choice(PATHS)
    if rng.random() < 0.2:
        path = _broken(rng, path)
    pairs = [(rng.choice(NAMES), _value(rng)) for _ in range(rng.choice((0, 1, 1, 2, 3, 6)))]
    query = b"&".join(name + b"=" + value for name, value in pairs)
    target = path + (b"?" + query if query else b"")
    version = rng.choice((b"HTTP/1.1",) * 9 + (b"HTTP/1.0", b"HTTP/9.9", b"", b"SMTP"))
    headers = [b"Host: 127.0.0.1", b"Connection: close", b"Accept: " + rng.choice(ACCEPTS)]
    if rng.random() < 0.2:
        host = rng.choice((b"evil.example", b"[::1", b"\xff", b"127.0.0.1:x", b""))
        headers[0] = b"Host: " + host
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        headers.append(rng.choice(HEADERS) + rng.choice((b": ", b":", b" : ", b"")) + _value(rng))
    head = b" ".join((method, target, version)) + b"\r\n"
    whole = head + b"".join(header + b"\r\n" for header in headers) + b"\r\n"
    if rng.random() < 0.05:
        whole = _broken(rng, whole)
    return whole


def _value(rng: Random) -> bytes:
    chance = rng.random()
    if chance < 0.05:
        return quote_from_bytes(rng.randbytes(rng.randrange(40))).encode()
    if chance < 0.08:
        return rng.choice((b"a", b"9", b"%41", b"(", b"a=b,")) * rng.choice((100, 5_000, 20_000))
    if chance < 0.15:
        return rng.choice((b"%", b"%g1", b"%f", b"%ff%fe", b"%00", b"%C3%28", b"+", b"&&", b"=;"))
    return rng.choice(VALUES).replace(b" ", b"%20").replace(b"\x00", b"%00")


def _broken(rng: Random, text: bytes) -> bytes:
    """Some bytes put in, taken out or changed."""
    broken = bytearray(text)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(broken) + 1)
        match rng.randrange(3):
            case 0:
                more = (b"%", b"..", b"/", b"\x00", b"\r\n", b"\xff", b" ")
                broken[place:place] = rng.choice(more)
            case 1:
                del broken[place : place + rng.randrange(1, 5)]
            case _:
                broken[place : place + 1] = rng.randbytes(1)
    return bytes(broken)


class Errors(logging.Handler):
    """What was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(logging.Formatter().format(record))


class Wire:
    """A server with some pods, on loopback. `with` runs it; freshness waits last `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        self._patch = pytest.MonkeyPatch()
        for name in ("WAIT_S", "WAIT_S_MAX"):
            self._patch.setattr(plan, name, wait_s)
        self.world, self.errors = World(), Errors()
        for index in range(20):
            self.world.put_pod("ab"[index % 2], f"p{index}", app="b", node="n1")

    def __enter__(self) -> Wire:
        logging.getLogger().addHandler(self.errors)
        self.world.__enter__()
        address = urlsplit(self.world.url)
        self._address = (address.hostname or "", address.port or 0)
        return self

    def __exit__(self, *_: object) -> None:
        self.world.__exit__(None, None, None)
        logging.getLogger().removeHandler(self.errors)
        self._patch.undo()

    def ask(self, asked: bytes) -> str:
        """The status of its answer; "closed" if there is none, "waits" if it needs more of it."""
        with socket.create_connection(self._address, PATIENCE_S) as sock:
            answer = b""
            try:
                sock.sendall(asked)
                while b"\r\n" not in answer and (chunk := sock.recv(4096)):
                    answer += chunk
            except TimeoutError:
                return "waits"
            except OSError:
                pass
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
        return status[1].decode() if status else "closed"

    def run_one(self, seed: int, requests: int) -> dict[str, Any]:
        """So many requests; what came of them."""
        began, rng = time.monotonic(), Random(f"wire {seed}")
        asked = [request(rng) for _ in range(requests)]
        del self.errors.said[:]
        with ThreadPoolExecutor(CLIENTS) as clients:
            outcomes = [*clients.map(self.ask, asked)]
        wrong = [
            {"request": repr(one[:400]), "status": status}
            for one, status in zip(asked, outcomes, strict=True)
            if status.isdigit() and int(status) not in DOCUMENTED
        ]
        logged = [{"request": "", "status": text} for text in self.errors.said]
        alive = self.ask(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert alive == "200", alive
        return {
            "seed": seed, "requests": requests, "took_s": round(time.monotonic() - began, 1),
            "outcomes": dict(sorted(Counter(outcomes).items())), "rss_mb": round(memory_mb(), 1),
            "threads": threading.active_count(), "violations": (wrong + logged)[:TOLD_MAX],
        }  # fmt: skip


def memory_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.wire", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="FROM:TO, TO not included")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=0.1, help="seconds that a read may wait")
    parser.add_argument("--out", type=Path, default=Path(".cache/fuzz-wire.jsonl"))
    options = parser.parse_args(argv)
    first, last = map(int, options.seeds.split(":"))
    text = options.out.read_text() if options.out.exists() else ""
    known = [json.loads(line) for line in text.splitlines()]
    done = {
        run["seed"]: run
        for run in known
        if run["requests"] == options.requests and not run["violations"]
    }
    runs, memory = [], []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with Wire(options.wait) as wire, options.out.open("a") as out:
        for seed in range(first, last):
            run = done.get(seed)
            if run is None:
                run = wire.run_one(seed, options.requests)
                memory.append(run["rss_mb"])
                print(json.dumps(run), file=out, flush=True)
            runs.append(run)
            for violation in run["violations"]:
                print(f"seed {seed}: {violation}", file=sys.stderr, flush=True)
    outcomes: Counter[str] = Counter()
    for run in runs:
        outcomes.update(run["outcomes"])
    settled = memory[len(memory) // 5 :] or [0.0]
    growth = settled[-1] - settled[0]
    violations = sum(len(run["violations"]) for run in runs)
    print(dict(sorted(outcomes.items())))
    print(f"{sum(outcomes.values())} requests, {violations} violations, memory "
          f"{settled[0]} -> {settled[-1]} MB after the first fifth")  # fmt: skip
    return int(violations > 0 or growth > GROWTH_MAX_MB)


if __name__ == "__main__":
    sys.exit(main())
