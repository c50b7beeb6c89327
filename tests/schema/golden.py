"""Upstream's own pairs: every kind of the API with every field set, as JSON and as protobuf.

They lie in the folders testdata/HEAD of golang-k8s-api-dev and
golang-k8s-apiextensions-apiserver-dev. Not copied here: they are upstream's, and 5 MB.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from btreecache.codec.base import Unreadable
from btreecache.codec.transcode import UnknownFields, json_of, protobuf_of

#: What the API's conversion adds and the pairs, which were never converted, have not.
CONVERTED = b'{"kind":"PersistentVolumeClaim","apiVersion":"v1",'


def say(line: str) -> None:
    """A line on stdout."""
    sys.stdout.write(line + "\n")


def compare(folders: Iterable[Path]) -> int:
    """Print what differs, and counts. 1 if anything does."""
    count: Counter[str] = Counter()
    for folder in folders:
        for pair in sorted(folder.glob("*.pb")):
            if "WatchEvent" in pair.name:
                # No object: its envelope names no kind.
                continue
            text = msgspec.json.format(pair.with_suffix(".json").read_bytes(), indent=-1)
            stored, unknown = pair.read_bytes(), UnknownFields()
            try:
                made = json_of(stored, unknown)
                if made != text and made.replace(CONVERTED, b"{") != text:
                    count["JSON differs"] += 1
                    say(f"{pair.name}: JSON differs")
                if protobuf_of(text) != stored:
                    count["protobuf differs"] += 1
                    say(f"{pair.name}: protobuf differs")
                count["unknown fields"] += unknown.count
                count["pairs"] += 1
            except Unreadable as error:
                count["not read"] += 1
                say(f"{pair.name}: {error}")
    say(", ".join(f"{name}: {number}" for name, number in count.items()))
    return int(set(count) - {"pairs", "unknown fields"} != set() or count["unknown fields"] > 0)
