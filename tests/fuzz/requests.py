"""Requests at random: what a grammar allows, and then what somebody did to it.

A request is a path or a key, and a query string. `plain` ones are nothing but valid.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import parse_qsl, quote, urlencode

from tests.fuzz.world import NAMES, NAMESPACES, World

#: Characters that somebody trips over: NUL, other digits, folds, separators, halves of pairs.
NASTY = [
    "\0", "\0", "\0", "\x7f", "\x80", "é", "٣", "１", "ſ", "K", "\u2028", "\ufeff", "\ufffd", "😀",  # noqa: RUF001
    "\ud800", "\udcff", "%", "%2F", "\\", '"', "'", "/", "..", "//", ".", "=", "==", "!", "!=",
    "(", ")", ",", ";", "&", " ", "\t", "\r\n", "<", ">", "+", "-", "_", "0", "9", "a", "in",
]  # fmt: skip

HUGE_CHARS, TOKEN_CHARS = 1 << 20, 65_536

#: What is repeated until it is huge, and what stands before and after it.
HUGE = [
    ("", "a,", "a"), ("a in (", "x,", "y)"), ("a in (", "-,", "y)"), ("", "!", ""), ("", "(", ""),
    ("a=", "x", ""), ("", "x", ""), ("", "-", ""), ("", "9", ""), ("", "0", ""), ("", "\\", ""),
    ("", "a=b\\,", ""), ("", "metadata.name=p1,", ""), ("", ".", ""), ("", "é", ""), ("", "\0", ""),
    ("", " ", ""), ("", "a/", ""), ("", "a.", "/b"), ("", "[", ""), ("", "\udcff", ""),
]  # fmt: skip
HUGE_TOKENS = [
    ("", "[", ""),
    ("", '{"v":', ""),
    ('{"v":"meta.k8s.io/v1","rv":1,"start":"', "a", '"}'),
    ('{"v":"meta.k8s.io/v1","rv":', "9", ',"start":"a"}'),
    ('{"', "v", '":1}'),
]

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """What is asked. `path` None: of the reader itself, `key` or prefix as bytes (None: all).

    `query`: a query string, or pairs that never were one. `exact`: one key, in a list or watch.
    """

    kind: str
    path: str | None
    key: bytes | None
    query: str | Pairs
    exact: bool = False
    plain: bool = False

    @property
    def pairs(self) -> Pairs:
        """The parameters, as the server reads them."""
        if not isinstance(self.query, str):
            return self.query
        return parse_qsl(self.query, keep_blank_values=True, errors="replace")

    @property
    def size(self) -> int:
        """Characters in all, about."""
        query = self.query
        asked = len(query) if isinstance(query, str) else sum(len(n) + len(v) for n, v in query)
        return asked + len(self.path or "") + len(self.key or b"")

    def __str__(self) -> str:
        said = f"{self.kind} path={self.path!r} key={self.key!r} query={self.query!r}"
        said += f" exact={self.exact} plain={self.plain}"
        return said if len(said) < 2_000 else f"{said[:2_000]}... ({len(said)} characters)"


class Requests:
    """Makes requests that have something to do with what is in a world."""

    def __init__(self, rng: Random, world: World) -> None:
        self.rng, self.world = rng, world
        #: Tokens that were given out, with the prefix of their list.
        self.tokens: list[tuple[str, bytes]] = []

    def next(self) -> Request:
        """One more."""
        rng = self.rng
        kind = rng.choice(["get", "get", "list", "list", "list", "page", "page", "watch", "route"])
        if kind == "route":
            return Request(kind, self.path(rng.random() < 0.7), None, self.query(self.options()))
        if rng.random() < 0.15:
            return self.plain(kind)
        pairs = self.options() if kind != "page" else self.page()
        if kind == "watch":
            pairs.append(("watch", rng.choice(["1", "true"])))
        if rng.random() < 0.3:
            rng.shuffle(pairs)
        exact = kind in ("list", "watch") and rng.random() < 0.1
        if rng.random() < 0.3 and not exact:
            return Request(kind, self.path(rng.random() < 0.1, kind), None, self.query(pairs))
        one = kind == "get" or exact
        return Request(kind, None, self.key(one), self.query(pairs), exact)

    def huge(self) -> Request:
        """One input of about a million characters, in one of the places where one fits."""
        rng = self.rng
        head, unit, tail = rng.choice(HUGE)
        text = head + unit * (HUGE_CHARS // len(unit)) + tail
        if rng.random() < 0.1:
            text = ",".join(f"k{i}!=v" for i in range(HUGE_CHARS // 10))
        elif rng.random() < 0.3:
            head, unit, tail = rng.choice(HUGE_TOKENS)
            raw = head + unit * (HUGE_CHARS // len(unit)) + tail
            text = base64.urlsafe_b64encode(raw.encode(errors="replace")).decode().rstrip("=")
            text = text[: rng.choice([TOKEN_CHARS, len(text)])]
        match rng.randrange(6):
            case 0:
                return Request("list", None, text.encode(errors="replace"), "")
            case 1:
                return Request("route", "/api/v1/namespaces/" + text, None, "")
            case 2:
                return Request("list", None, None, [(text, "1"), ("limit", text)])
        name = rng.choice(["continue", "labelSelector", "labelSelector", "fieldSelector",
                           "fieldSelector", "resourceVersion", "timeoutSeconds"])  # fmt: skip
        kind = "watch" if rng.random() < 0.3 else "list"
        return Request(kind, None, None, [(name, text)] + [("watch", "1")] * (kind == "watch"))

    def plain(self, kind: str) -> Request:
        """Everything valid, in a combination that is allowed."""
        rng, world = self.rng, self.world
        pairs: Pairs = []
        revision = str(rng.choice([max(1, world.compacted), world.current, world.current + 1]))
        if kind in ("list", "watch") and rng.random() < 0.7:
            pairs += [("labelSelector", self.labels()), ("fieldSelector", self.fields())]
        if kind == "list":
            pairs.append(("limit", rng.choice(["0", "1", "3", "500"])))
        if kind != "page" and rng.random() < 0.7:
            pairs.append(("resourceVersion", rng.choice(["0", revision])))
            if kind != "watch" and pairs[-1][1] != "0" and rng.random() < 0.5:
                pairs.append(("resourceVersionMatch", rng.choice(["Exact", "NotOlderThan"])))
        if kind == "watch":
            pairs += [("watch", "1"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", "30")]
        key = self.known_key() if kind == "get" else None
        if kind == "page":
            if not self.tokens:
                return Request("list", None, None, "", plain=True)
            token, key = rng.choice(self.tokens)
            pairs += [("continue", token), ("limit", "2")]
        return Request(kind, None, key, urlencode(pairs), plain=True)

    # Parts of a query.

    def options(self) -> Pairs:
        """Some parameters, each as it should be or not."""
        rng = self.rng
        makers: list[tuple[str, Callable[[], str], float]] = [
            ("resourceVersion", self.version, 0.6),
            ("resourceVersionMatch", self.match, 0.25),
            ("limit", self.number, 0.4),
            ("labelSelector", lambda: self.spoilt(self.labels()), 0.35),
            ("fieldSelector", lambda: self.spoilt(self.fields()), 0.35),
            ("continue", self.token, 0.06),
            ("timeoutSeconds", self.number, 0.2),
            ("allowWatchBookmarks", self.flag, 0.2),
            ("sendInitialEvents", self.flag, 0.1),
            ("watch", self.flag, 0.02),
        ]
        pairs = [(name, make()) for name, make, chance in makers if rng.random() < chance]
        if pairs and rng.random() < 0.1:
            name, value = rng.choice(pairs)
            pairs.append((self.mutated(name), value) if rng.random() < 0.5 else (name, "x"))
        return pairs

    def page(self) -> Pairs:
        rng = self.rng
        pairs = [
            ("continue", self.token()),
            ("limit", self.number() if rng.random() < 0.2 else "2"),
        ]
        if rng.random() < 0.1:
            pairs.append(("resourceVersion", self.version()))
        if rng.random() < 0.3:
            pairs.append(("labelSelector", self.spoilt(self.labels())))
        if rng.random() < 0.1:
            pairs.append(("resourceVersionMatch", self.match()))
        return pairs

    def query(self, pairs: Pairs) -> str | Pairs:
        """As a query string, sometimes a damaged one; or as pairs, which may hold anything."""
        if self.rng.random() < 0.2:
            return pairs
        text = urlencode(pairs, errors="replace")
        if self.rng.random() < 0.1:
            text = self.mutated(text).encode(errors="replace").decode("latin-1")
        return text

    def spoilt(self, text: str) -> str:
        return self.mutated(text) if self.rng.random() < 0.5 else text

    def mutated(self, text: str) -> str:
        """One to three things done to a text."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randint(0, len(text))
            to = min(len(text), at + rng.choice([0, 1, 1, 2, 5]))
            match rng.randrange(7):
                case 0:
                    text = text[:at] + text[to:]
                case 1:
                    text = text[:to] + text[at:]
                case 2 | 3:
                    text = text[:at] + rng.choice(NASTY) + text[to:]
                case 4:
                    text = text[:at] + rng.choice(NASTY) * rng.choice([2, 64, 300]) + text[at:]
                case 5:
                    text = text[:at].swapcase() + text[at:]
                case _:
                    text = text[:at]
        return text

    def mutated_bytes(self, data: bytes) -> bytes:
        """The same for bytes."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2])):
            at = rng.randint(0, len(data))
            new = rng.choice([b"", b"/", b"//", b"\0", b"\xff", b"..", bytes([rng.randrange(256)])])
            data = data[:at] + new + data[at + rng.choice([0, 1, 3]) :]
        return data

    def version(self) -> str:
        rng, world = self.rng, self.world
        near = rng.choice(
            [world.compacted, world.current, world.cache.revision, world.cache.oldest]
        )
        text = str(max(0, near + rng.choice([-1, 0, 0, 1, 2])))
        chance = rng.random()
        if chance < 0.55:
            return text
        if chance < 0.8:
            return rng.choice([
                "", "0", "00", "-0", "-1", "+1", "1_0", "0x1", "1e3", "1.0", " 1", "1 ", "٣", "１",  # noqa: RUF001
                "9" * 19, "9" * 20, "9" * 400, "0" * 400 + text, str(2**63 - 1), str(2**63),
                str(2**64 - 1), str(2**64), "-" + "9" * 30, "null", "latest", "\0", "inf", "nan",
            ])  # fmt: skip
        return self.mutated(text)

    def number(self) -> str:
        rng = self.rng
        if rng.random() < 0.6:
            return str(rng.choice([0, 1, 1, 2, 3, 500, -1, 10, 60]))
        if rng.random() < 0.5:
            return rng.choice([
                "", "+2", "-0", "007", str(2**63 - 1), str(2**63), str(-(2**63)), "9" * 5_000,
                "1.5", "٣", " 3", "3\n", "1_0", "nan", "inf", "1e9",
            ])  # fmt: skip
        return self.mutated(str(rng.randint(0, 100)))

    def match(self) -> str:
        known = self.rng.choice(["Exact", "Exact", "NotOlderThan", "NotOlderThan", ""])
        return self.mutated(known) if self.rng.random() < 0.2 else known

    def flag(self) -> str:
        said = self.rng.choice(["true", "false", "1", "0", "", "True", "FALSE", "no", "\0"])
        return self.mutated(said) if self.rng.random() < 0.1 else said

    def labels(self) -> str:
        """A label selector that is right."""
        rng = self.rng
        terms = []
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 6])):
            key = rng.choice(["app", "tier", "example.com/n", "no"])
            value = rng.choice(["x", "y", "web", "db", "0", "5", "05", ""])
            values = ",".join(rng.choices(["x", "y", "web", "5", "", " db "], k=rng.randint(0, 4)))
            number = rng.choice(["0", "4", "5", "0005"])
            terms.append(rng.choice([
                key, f"!{key}", f"{key}={value}", f"{key} == {value}", f"{key}!={value}",
                f"{key} in ({values})", f"{key} notin ({values})", f"{key}>{number}",
                f"{key}<{number}",
            ]))  # fmt: skip
        return rng.choice([",", ", ", " ,"]).join(terms)

    def fields(self) -> str:
        """A field selector that is right."""
        rng = self.rng
        terms = []
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            name, values = rng.choice([
                ("metadata.name", NAMES), ("metadata.namespace", NAMESPACES),
                ("spec.nodeName", ("n1", "n2", "")), ("spec.host", ("n1", "")),
                ("status.phase", ("Running", "Pending")), ("spec.restartPolicy", ("Always",)),
                ("metadata.name", ("a/b", "..", "p1/x", "\\,", "a\\=b")),
                ("metadata.namespace", ("", "a/p1", "a\0")),
            ])  # fmt: skip
            terms.append(name + rng.choice(["=", "==", "!="]) + rng.choice(values))
        return ",".join(terms)

    def token(self) -> str:
        """A token: one that was given out, one made by hand, or what became of it."""
        rng = self.rng
        if self.tokens and rng.random() < 0.3:
            given = rng.choice(self.tokens)[0]
            return given if rng.random() < 0.4 else self.mutated(given)
        if rng.random() < 0.05:
            return rng.choice(["", "e30", "bnVsbA", "W10", "MQ", "a", "=", "eyJ", "A" * 70_000])
        name = self.known_key()[len(self.world.base) :].decode(errors="replace") + "\0"
        start: object = rng.choice([
            name, name, name, name, name[:-1], "a", "/", "", "/a/p1", "../a", "a/../b", "a//b",
            "a/", ".", "..", "\0", "\ud800", "é", "zzz", "\uffff", None, 1, [], {}, "a" * 3_000,
        ])  # fmt: skip
        if isinstance(start, str) and rng.random() < 0.15:
            start = self.mutated(start)
        near = rng.choice([self.world.current, self.world.compacted, self.world.cache.oldest])
        revision: object = rng.choice([
            near, near, near, near, near - 1, near + 1, near + 1, -1, -1, 0, -2, 2**63 - 1, 2**63,
            -(2**63), 2**64, 1.0, 1e30, True, None, "1", [], 10**400,
        ])  # fmt: skip
        members: list[tuple[str, object]] = [("v", "meta.k8s.io/v1"), ("rv", revision),
                                             ("start", start)]  # fmt: skip
        if rng.random() < 0.2:
            more: list[tuple[str, object]] = [
                ("V", "x"), ("RV", near), ("Start", "b"), ("x", [[{}]]), ("v", None),
                ("\u017ftart", "b"),  # Go folds this letter to an s.
            ]  # fmt: skip
            members.insert(rng.randint(0, 3), rng.choice(more))
        if rng.random() < 0.1:
            members.pop(rng.randrange(len(members)))
        said = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
        return self.encoded(f"{{{said}}}")

    def encoded(self, text: str) -> str:
        """In base64, with damage below it, in it, and after it."""
        rng = self.rng
        if rng.random() < 0.15:
            text = self.mutated(text)
        raw = text.encode(errors="surrogatepass")
        if rng.random() < 0.1:
            raw = self.mutated_bytes(raw)
        made = base64.urlsafe_b64encode(raw).decode()
        if rng.random() < 0.9:
            made = made.rstrip("=")
        return self.mutated(made) if rng.random() < 0.15 else made

    # Keys and paths.

    def known_key(self) -> bytes:
        return self.world.base + self.rng.choice(self.world.names)

    def key(self, one: bool) -> bytes | None:
        """A key if it is `one`, else a prefix."""
        rng, base = self.rng, self.world.base
        if one:
            key = self.known_key()
        else:
            key = base + rng.choice(
                [b"", b"", b"", b"a/", b"a", b"b/", b"none/", b"a/p1", b"a/p1/"]
            )
            if rng.random() < 0.3:
                return None
        if rng.random() < 0.25:
            return self.mutated_bytes(key)
        outside = [b"", b"/", b"\0", b"\xff", base[:-1], b"/registry/nodes/n", base + b"x" * 5_000]
        return rng.choice(outside) if rng.random() < 0.05 else key

    def path(self, wild: bool, kind: str = "") -> str:
        rng = self.rng
        namespace, name = rng.choice([*NAMESPACES, "none"]), rng.choice([*NAMES, "none"])
        if wild:
            parts = [
                "", "api", "apis", "v1", "v2", "apps", "pods", "nodes", "namespaces", "status",
                "events.k8s.io", "deployments", "watch", "a", "p1", "..", "%", "readyz",
            ]  # fmt: skip
            path = "/" + "/".join(rng.choices(parts, k=rng.randint(0, 8)))
            return self.mutated(path) if rng.random() < 0.3 else path
        if rng.random() < 0.2:
            namespace, name = self.mutated(namespace), self.mutated(name)
        path = f"/api/v1/namespaces/{namespace}/pods"
        if kind == "get":
            path += f"/{name}"
        elif rng.random() < 0.5:
            path = "/api/v1/pods"
        path += rng.choice(["", "", "/"])
        return quote(path, errors="replace") if rng.random() < 0.02 else path
