"""Where objects come from: --etcd with what it takes to log in, or --sim with what it writes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from btreecache.cli import access, arguments
from btreecache.errors import BadRequest
from btreecache.source import Source

#: --sim: objects to begin with.
OBJECTS = 10_000


#: The flags of --sim.
SIMULATED = ("seed", "objects", "writes", "fault")


def add_flags(
    parser: argparse.ArgumentParser, *, verb: str, writes: int, archive: bool = False
) -> None:
    """Declare them. `verb`: what is done with the objects; `writes`: revisions a second; `archive`:
    whether one will do as well."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--etcd",
        metavar="HOST:PORT[,..]",
        help=f"{verb} what this etcd holds; several endpoints are members of one cluster",
    )
    source.add_argument(
        "--sim",
        metavar="PROFILE",
        help=f"{verb} what the simulator writes: kubernetes (a busy cluster), cluster (a small one"
        " to look at), ..",
    )
    if archive:
        source.add_argument(
            "--archive", metavar="URI", help=f"{verb} what this archive holds: a path, zeo://,"
            " postgresql://",
        )  # fmt: skip
    access.add_flags(parser)
    parser.add_argument("--seed", type=arguments.whole, help="--sim: of the traffic (default 0)")
    parser.add_argument(
        "--objects", type=arguments.positive, help=f"--sim: keys (default {OBJECTS})"
    )
    parser.add_argument(
        "--writes", type=arguments.whole, help=f"--sim: revisions a second (default {writes})"
    )
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME=RATE",
        help="--sim: inject a fault with this probability, as in `check`",
    )  # fmt: skip


def refuse(options: argparse.Namespace, needs: str, *flags: str) -> None:
    """Flags that go with another origin. Raises BadRequest."""
    for flag in flags:
        if getattr(options, flag) not in (None, []):
            raise BadRequest(f"--{flag} needs {needs}")


@contextmanager
def opened(
    options: argparse.Namespace, *, writes: int, wall_s: Callable[[], float] | None = None
) -> Iterator[Source]:
    """What the flags name, closed at the end. `wall_s`: as LiveSimulation's. Raises BadRequest."""
    if options.etcd:
        refuse(options, "--sim", *SIMULATED)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from btreecache.sources.etcd import EtcdSource

        source = EtcdSource(options.etcd, access=access.named(options))
        try:
            yield source
        finally:
            source.close()
        return
    from btreecache.cli.live import LiveSimulation

    refuse(options, "--etcd", "cacert", "cert", "key", "user")
    try:
        simulation = LiveSimulation(
            options.sim,
            seed=options.seed or 0,
            objects=options.objects or OBJECTS,
            faults=options.fault,
            writes_per_s=writes if options.writes is None else options.writes,
            wall_s=wall_s,
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None
    with simulation:
        yield simulation.source
