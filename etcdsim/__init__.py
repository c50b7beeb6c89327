"""etcdsim: a deterministic simulation of etcd, its traffic, and what can go wrong.

    >>> from etcdsim import Simulator, parse_fault, prefix_range
    >>> simulator = Simulator("churn", seed=7, objects=100, faults=[parse_fault("drop=0.001")])
    >>> simulator.load()
    >>> stream = simulator.feed.watch(*prefix_range(b"/registry/"), start_revision=0)
    >>> for _ in range(50):
    ...     simulator.step()
    >>> extra_writes = simulator.finish()
    >>> responses = list(iter(stream.poll, None))
    >>> responses[-1].progress, responses[-1].header_revision == simulator.model.revision
    (True, True)
    >>> simulator.injected
    {'drop': 1}

It stands alone: it is the truth that caches are checked against, so it shares no code with them.
Names are loaded when they are first used: whoever only needs `etcdsim.wire` loads no simulator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etcdsim.clock import VirtualClock
    from etcdsim.errors import EtcdError
    from etcdsim.fault import Fault
    from etcdsim.faults import FAULTS, parse_fault
    from etcdsim.model import Event, KeyValue, Model, prefix_end, prefix_range
    from etcdsim.prng import Prng
    from etcdsim.simulator import Simulator
    from etcdsim.traffic import PROFILES
    from etcdsim.watch import Watcher, WatchResponse

_HOMES = {
    "FAULTS": "faults",
    "PROFILES": "traffic",
    "EtcdError": "errors",
    "Event": "model",
    "Fault": "fault",
    "KeyValue": "model",
    "Model": "model",
    "Prng": "prng",
    "Simulator": "simulator",
    "VirtualClock": "clock",
    "WatchResponse": "watch",
    "Watcher": "watch",
    "parse_fault": "faults",
    "prefix_end": "model",
    "prefix_range": "model",
}

__all__ = [
    "FAULTS",
    "PROFILES",
    "EtcdError",
    "Event",
    "Fault",
    "KeyValue",
    "Model",
    "Prng",
    "Simulator",
    "VirtualClock",
    "WatchResponse",
    "Watcher",
    "parse_fault",
    "prefix_end",
    "prefix_range",
]


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"etcdsim.{_HOMES[name]}"), name)
