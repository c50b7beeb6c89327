"""What a real API server stored and answered: tests/data/kube-objects.jsonl.

Recorded on 2026-11-23 from kube-apiserver 1.20.2 on etcd 3.5.30; a selection. Each object: `key`,
`mod_revision`, `kind`, `etcd_value` (base64), and the whole answers to GET as `json` and `protobuf`
(base64).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from btreecache.element import Element

DATA = Path(__file__).parents[1] / "data" / "kube-objects.jsonl"


class Field(NamedTuple):
    """A declared field, as a codec takes it."""

    name: str
    path: tuple[str | int, ...]
    default: str = ""

    @property
    def paths(self) -> tuple[tuple[str | int, ...], ...]:
        return (self.path,)


@dataclass(frozen=True)
class Recorded:
    """One object: as stored, and as answered."""

    key: bytes
    kind: str
    revision: int
    stored: bytes
    json: bytes
    protobuf: bytes

    @property
    def element(self) -> Element:
        return raw(self.stored, self.revision, self.key)

    @property
    def as_stored_json(self) -> bytes:
        """Its JSON answer as a server that stores JSON would have stored it: with no version."""
        return self.json.replace(b'"resourceVersion":"%d",' % self.revision, b"", 1)


def raw(value: bytes, revision: int = 7, key: bytes = b"/registry/x/y") -> Element:
    return Element(key, value, revision, 1, 1)


def recorded() -> list[Recorded]:
    found = []
    for line in DATA.read_text().splitlines():
        one = json.loads(line)
        found.append(
            Recorded(
                one["key"].encode(),
                one["kind"],
                one["mod_revision"],
                base64.b64decode(one["etcd_value"]),
                one["json"].encode(),
                base64.b64decode(one["protobuf"]),
            )
        )
    return found
