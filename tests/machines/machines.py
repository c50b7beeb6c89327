"""The machines by name."""

from __future__ import annotations

from tests.machines.archive import ArchiveMachine
from tests.machines.cache import CacheMachine
from tests.machines.follower import FollowerMachine
from tests.machines.model import Machine
from tests.machines.reader import ReaderMachine
from tests.machines.store import StoreMachine
from tests.machines.tree import TreeMachine
from tests.machines.window import WindowMachine

MACHINES: dict[str, type[Machine]] = {
    "tree": TreeMachine,
    "window": WindowMachine,
    "cache": CacheMachine,
    "store": StoreMachine,
    "follower": FollowerMachine,
    "reader": ReaderMachine,
    "archive": ArchiveMachine,
}
