"""`btreecache check`: is every snapshot that the cache retains what the source of truth says?

With `--sim` the whole run happens in this process and every retained revision is compared; with
`--etcd` a follower fills a cache from a live server, and each round compares with its ranges.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any

from btreecache.cache import Cache
from btreecache.cli import access, arguments, report, signals
from btreecache.cli.progress import progress
from btreecache.consistency import Checker, Round
from btreecache.errors import BadRequest
from btreecache.follow import Follower
from btreecache.window import Bounds

if TYPE_CHECKING:
    pass

#: Revisions that a simulated run retains: the whole run, up to here.
SIMULATED_REVISIONS_MAX = 50_000

#: Between two rounds, where only --for was given.
INTERVAL_S = 10.0


def add_parser(commands: Any) -> None:
    """Declare the command and its flags."""
    parser = commands.add_parser(
        "check",
        help="compare every retained snapshot with the source of truth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--etcd",
        metavar="HOST:PORT[,..]",
        help="check against this etcd; several endpoints are members of one cluster",
    )
    source.add_argument(
        "--sim",
        metavar="PROFILE",
        help="check against the simulator: kubernetes (default), churn, hot_key, lease_storm",
    )
    parser.add_argument(
        "--truth",
        metavar="HOST:PORT[,..]",
        help="--etcd: compare with what this etcd says instead: the same data, reached otherwise",
    )
    access.add_flags(parser)
    parser.add_argument(
        "--prefix",
        type=arguments.key_bytes,
        default=b"",
        help="only the keys that start so (default: the whole keyspace)",
    )
    parser.add_argument(
        "--mode",
        choices=["keys", "values"],
        help="compare keys and revisions, or values too (default: values with --sim, else keys)",
    )
    parser.add_argument(
        "--revisions",
        type=arguments.revisions,
        metavar="latest|N|all",
        help="which retained revisions: the newest; the newest, the oldest and N-2 between; "
        "all (default: all with --sim, else latest)",
    )
    _add_when(parser)
    parser.add_argument(
        "--seed", type=arguments.whole, default=0, help="of all choices (default 0)"
    )
    parser.add_argument("--objects", type=arguments.positive, help="--sim: keys (default 10000)")
    parser.add_argument(
        "--writes", type=arguments.whole, help="--sim: revisions in each round (default 50000)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help="--sim: inject a fault with this probability: drop, reorder, split, duplicate, "
        "corrupt_value, corrupt_revision, duplicate_revision, delay, late_progress, "
        "early_progress, cancel, compact_race, stale, restart_at_older_revision, "
        "lost_delete_at_compaction, etcd_15220, etcd_15271, etcd_17247, etcd_17529, etcd_18089, "
        "etcd_20221",
    )
    parser.add_argument("--output", choices=[*report.FORMATS], default="text")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def _add_when(parser: argparse.ArgumentParser) -> None:
    duration = arguments.duration_s
    parser.add_argument(
        "--for", dest="for_s", type=duration, metavar="DURATION", help="check for so long"
    )
    parser.add_argument(
        "--interval",
        dest="interval_s",
        type=duration,
        metavar="DURATION",
        help=f"pause between rounds (default {INTERVAL_S:g}s with --for); without --for: for ever",
    )
    parser.add_argument("--once", action="store_true", help="one round (the default)")


def run(options: argparse.Namespace) -> int:
    """Check as asked, print the report; the exit code."""
    if options.once and (options.for_s or options.interval_s):
        raise BadRequest("--once can't be combined with --for or --interval")
    started = time.monotonic()
    with signals.stopping() as stopping:
        outcome = _run_etcd(options, stopping) if options.etcd else _run_sim(options, stopping)
    outcome.duration_s = time.monotonic() - started
    print(report.FORMATS[options.output](outcome))
    return outcome.exit_code


def _rounds(
    options: argparse.Namespace, stopping: threading.Event, check: Callable[[], Round]
) -> Iterator[tuple[Round, float]]:
    """Run rounds as --once, --for and --interval say; each with how long it took in seconds."""
    repeated = options.for_s is not None or options.interval_s is not None
    end_s = time.monotonic() + options.for_s if options.for_s is not None else None
    while True:
        began_s = time.monotonic()
        outcome = check()
        now_s = time.monotonic()
        yield outcome, now_s - began_s
        if not repeated or stopping.is_set() or (end_s is not None and now_s >= end_s):
            return
        pause_s = options.interval_s or INTERVAL_S
        # The last round begins at the end of --for, not an interval before it.
        stopping.wait(pause_s if end_s is None else min(pause_s, end_s - now_s))


def _run_etcd(options: argparse.Namespace, stopping: threading.Event) -> report.Report:
    # gRPC's core writes its own lines to stderr on a refused TLS handshake; ours says it in one.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from btreecache.sources.etcd import EtcdSource

    for flag in ("objects", "writes", "fault"):
        if getattr(options, flag):
            raise BadRequest(f"--{flag} needs --sim")
    # The truth has a connection of its own: what it says never came through the follower's.
    allowed = access.named(options)
    source = EtcdSource(options.etcd, access=allowed)
    truth = EtcdSource(options.truth or options.etcd, access=allowed)
    try:
        truth.current_revision()
        cache = Cache(options.prefix)
        follower = Follower(source, cache, rng=Random())
        checker = Checker(
            cache,
            truth,
            mode=options.mode or "keys",
            page_keys=500 if options.mode == "values" else 10_000,
            request_progress=follower.request_progress,
            rng=Random(options.seed),
        )

        def check() -> Round:
            outcome = checker.check(options.revisions or "latest")
            if outcome.verdict == "unknown" and follower.trouble:
                outcome.reason = f"{outcome.reason}; {follower.trouble}"
            return outcome

        outcome = report.Report(truth.name, options.seed)
        with follower:
            outcome.rounds.extend(_rounds(options, stopping, check))
        return outcome
    finally:
        source.close()
        truth.close()


def _run_sim(options: argparse.Namespace, stopping: threading.Event) -> report.Report:
    from btreecache.cli.simulation import Simulation

    for flag in ("truth", "cacert", "cert", "key", "user"):
        if getattr(options, flag) is not None:
            raise BadRequest(f"--{flag} needs --etcd")
    try:
        simulation = Simulation(
            profile=options.sim or "kubernetes",
            seed=options.seed,
            objects=options.objects or 10_000,
            faults=options.fault,
            prefix=options.prefix,
            mode=options.mode or "values",
            bounds=Bounds(age_s=None, revisions=SIMULATED_REVISIONS_MAX),
        )
    except ValueError as error:
        raise BadRequest(str(error)) from None
    writes = 50_000 if options.writes is None else options.writes

    def check() -> Round:
        with progress("writing", writes) as advance:
            simulation.write(writes, stopping, advance)
        with progress("checking", simulation.retained) as advance:
            return simulation.check(options.revisions or "all", stopping, advance)

    outcome = report.Report(simulation.source.name, options.seed)
    outcome.rounds.extend(_rounds(options, stopping, check))
    outcome.faults_injected = dict(simulation.simulator.injected)
    return outcome
