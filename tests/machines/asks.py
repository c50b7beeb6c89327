"""What was asked in the reader's machine, and what was the case then."""

from __future__ import annotations

from dataclasses import dataclass, field

from btreecache.options import ListOptions
from tests.machines.pods import ALL, Chosen


@dataclass
class Ask:
    """One list as it is asked for; `exact`: the revision that it must be at, `least`: or above."""

    options: ListOptions
    prefix: bytes
    recursive: bool
    chosen: Chosen
    exact: int | None
    least: int
    start: bytes = b""
    keys_known: bool = True

    @property
    def filtered(self) -> bool:
        return self.chosen is not ALL

    @property
    def limit(self) -> int | None:
        return self.options.limit if self.options.limit > 0 and self.recursive else None


@dataclass
class Chain:
    ask: Ask
    revision: int
    token: str
    read: list[bytes] = field(default_factory=list)


@dataclass
class Before:
    """What was the case when something was asked, for whoever judges an error."""

    ready: bool
    refused: int
    interruptions: int
    current: int
    now_s: float
