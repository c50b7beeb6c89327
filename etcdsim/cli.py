"""The `etcdsim` command.

Exit codes: 0 done, or every trace valid, 1 a trace is broken or differs, 2 a mistake in the
arguments or a file that is no trace (one line on stderr), 3 unknown, or anything else that went
wrong. stdout is data, stderr is for people.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import signal
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO, NoReturn

from etcdsim.errors import DamagedLogError, DataDirError
from etcdsim.faults import FAULTS, parse_fault
from etcdsim.history import record
from etcdsim.model import Model
from etcdsim.prng import Prng
from etcdsim.record import RecordError, record_simulated, rerun
from etcdsim.simulator import Simulator
from etcdsim.trace import Trace, load_trace, write_trace
from etcdsim.traffic import PROFILES
from etcdsim.validate import State, as_json, overall, validate

PROGRESS_S = 5.0  # between two lines on stderr
STOP_WITHIN_S = 0.05  # of a signal, when there is nothing to do
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CODES: dict[State, int] = {"valid": 0, "broken": 1, "unknown": 3}


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _integer(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an integer: {text!r}") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text}")
    return number


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not a duration such as 500ms, 10s or 5m: {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="etcdsim", description="A deterministic simulation of etcd.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_record(
        commands.add_parser(
            "record",
            help="write a trace of seeded traffic",
            description="Write a trace: what clients get, of a seeded run or of a real etcd.",
        )
    )
    _add_serve(
        commands.add_parser(
            "serve",
            help="be an etcd: speak its API over gRPC",
            description="Serve etcd's v3 API; the first line on stdout is READY HOST:PORT.",
        )
    )
    _add_drive(
        commands.add_parser(
            "drive",
            help="make the simulator's traffic on an etcd",
            description="Make the seeded traffic of a profile on an etcd; a summary on stdout.",
        )
    )
    validating = commands.add_parser(
        "validate",
        help="check traces against etcd's watch guarantees",
        description="Check traces: Ordered, Unique, Atomic, Reliable, Resumable, Bookmarkable, "
        "PrevKV, IsCreate, Filter.",
    )
    validating.add_argument("files", nargs="+", metavar="FILE")
    validating.add_argument(
        "--output", choices=["text", "json"], default="text", help="default: %(default)s"
    )
    replaying = commands.add_parser(
        "replay",
        help="run the run of a trace again",
        description="Run the run of a simulated trace again and compare the bytes; check the trace "
        "of a real etcd again.",
    )
    replaying.add_argument("file", metavar="FILE")
    return parser


def _address(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d{1,5}", text):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, not {text!r}")
    return text


def _loopback(text: str) -> str:
    host = _address(text).rpartition(":")[0].strip("[]")
    try:
        is_loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise argparse.ArgumentTypeError(f"only on loopback, not on {host}")
    return text


def _add_serve(serving: argparse.ArgumentParser) -> None:
    serving.add_argument(
        "--listen",
        type=_address,
        default="127.0.0.1:2379",
        metavar="HOST:PORT",
        help="port 0 for a free one (default: %(default)s)",
    )
    serving.add_argument(
        "--emulated-version",
        default="3.5.30",
        metavar="VERSION",
        help="what it says it is, and does alike where versions differ (default: %(default)s)",
    )
    serving.add_argument(
        "--progress-notify-interval",
        type=_duration,
        default=600.0,
        metavar="DURATION",
        help="between the progress marks of watches that ask for them (default: 10m)",
    )
    serving.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="keep everything there: what was answered survives the process (default: in memory)",
    )
    serving.add_argument(
        "--profile", help=f"begin with simulated traffic: {', '.join(PROFILES)} (default: empty)"
    )
    serving.add_argument(
        "--seed", type=_integer, default=0, help="of traffic and lease ids (default: %(default)s)"
    )
    serving.add_argument("--objects", type=_integer, help="with --profile (default: 1000)")
    serving.add_argument("--writes", type=_integer, help="with --profile (default: 1000)")
    serving.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help="between the store and its clients; may be repeated: those of `record`, and slow, "
        "unavailable, reset, leader_change, restart",
    )
    serving.add_argument("--faults", metavar="MIX", help="several at once: flaky, lossy, hostile")
    serving.add_argument(
        "--admin-listen",
        type=_loopback,
        metavar="HOST:PORT",
        help="where the faults can be changed over HTTP, on loopback only",
    )
    serving.add_argument(
        "--truth-listen",
        type=_address,
        metavar="HOST:PORT",
        help="the same store without faults",
    )


def _rate(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"not a rate above 0: {text!r}")
    return float(text)


def _add_drive(driving: argparse.ArgumentParser) -> None:
    add = driving.add_argument
    add("--etcd", type=_address, required=True, metavar="HOST:PORT")
    add("--profile", default="kubernetes", help=f"{', '.join(PROFILES)} (default: %(default)s)")
    add("--seed", type=_integer, default=0, help="default: %(default)s")
    add("--objects", type=_integer, default=1000, help="created first (default: %(default)s)")
    bound = driving.add_mutually_exclusive_group()
    bound.add_argument("--writes", type=_integer, help="after that (default: 1000)")
    bound.add_argument("--for", dest="duration_s", type=_duration, metavar="DURATION")
    add("--rate", type=_rate, metavar="PER_SECOND", help="requests (default: what it takes)")
    add("--prefix", help="before every key (default: /etcdsim/drive/SEED)")
    add(
        "--compact",
        type=_integer,
        default=0,
        metavar="WRITES",
        help="compact the whole store after so many, not just the prefix (default: never)",
    )


def _drive(arguments: argparse.Namespace) -> int:
    # Here, so that a simulated run needs neither protobuf nor grpcio.
    from etcdsim.calls import Calls  # noqa: PLC0415
    from etcdsim.drive import Driver  # noqa: PLC0415

    if not arguments.objects or arguments.seed >= 1 << 64:
        raise _UsageError("driving needs at least 1 object and a seed below 2**64")
    if arguments.profile not in PROFILES:
        raise _UsageError(f"unknown profile {arguments.profile!r}: {', '.join(PROFILES)}")
    prefix = arguments.prefix
    if prefix is None:
        prefix = f"/etcdsim/drive/{arguments.seed}"
    stops: list[int] = []  # a lock, as that of an Event, could be held when the signal comes
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stops.append(number))
    said_at = time.monotonic()

    def wait(seconds: float) -> bool:
        nonlocal said_at
        until = time.monotonic() + seconds
        if time.monotonic() >= said_at + PROGRESS_S:
            said_at = time.monotonic()
            sys.stderr.write(
                f"requests={driver.requests} writes={driver.writes} failures={driver.failures}\n"
            )
        while not stops and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, STOP_WITHIN_S))
        return bool(stops)

    driver = Driver(
        Calls(arguments.etcd),
        arguments.profile,
        seed=arguments.seed,
        prefix=prefix.encode(),
        clock=time.monotonic,
        wait=wait,
        rate=arguments.rate,
        compact=arguments.compact,
    )
    writes = arguments.writes
    if writes is None and arguments.duration_s is None:
        writes = 1000
    driver.run(arguments.objects, writes, arguments.duration_s)
    given = {name: getattr(arguments, name) for name in ("etcd", "profile", "seed", "objects")}
    print(json.dumps({**given, "prefix": prefix, **driver.summary()}), flush=True)
    if driver.is_lost:
        raise RecordError(f"{arguments.etcd} answers no more: {driver.calls.last_error}")
    return 0


def _add_record(recording: argparse.ArgumentParser) -> None:
    source = recording.add_mutually_exclusive_group()
    source.add_argument(
        "--profile",
        help=f"simulate this workload: {', '.join(PROFILES)} (default: kubernetes)",
    )
    source.add_argument(
        "--etcd", metavar="HOST:PORT", help="make traffic on this etcd, below a prefix of its own"
    )
    recording.add_argument("--seed", type=_integer, default=0, help="default: %(default)s")
    recording.add_argument(
        "--clients",
        type=_integer,
        help="that watch at random and write to a real etcd (default: 3 with --etcd, else a single "
        "one that lists and watches everything)",
    )
    recording.add_argument(
        "--for",
        dest="duration_s",
        type=_duration,
        metavar="DURATION",
        help="of the traffic on a real etcd (default: 1s)",
    )
    recording.add_argument(
        "--compact",
        action="store_true",
        help="also compact the real etcd now and then: the whole store, not just the own prefix",
    )
    recording.add_argument(
        "--objects", type=_integer, help="simulated objects at the start (default: 1000)"
    )
    recording.add_argument(
        "--writes", type=_integer, help="simulated write revisions (default: 1000)"
    )
    recording.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help=f"simulated; may be repeated: {', '.join(FAULTS)}, each with a rate from 0 to 1",
    )
    recording.add_argument(
        "--output", default="-", metavar="FILE", help="- for stdout (default: %(default)s)"
    )


def _record(arguments: argparse.Namespace) -> int:
    if arguments.etcd is not None:
        return _record_etcd(arguments)
    for flag in ("duration_s", "compact"):
        if getattr(arguments, flag):
            name = flag.replace("duration_s", "for")
            raise _UsageError(f"--{name} is of a real etcd: it needs --etcd")
    objects = 1000 if arguments.objects is None else arguments.objects
    writes = 1000 if arguments.writes is None else arguments.writes
    try:
        simulator = Simulator(
            arguments.profile or "kubernetes",
            seed=arguments.seed,
            objects=objects,
            faults=[parse_fault(text) for text in arguments.fault],
        )
    except ValueError as error:
        raise _UsageError(str(error)) from None
    with _Output(arguments.output) as file:
        if arguments.clients:
            trace = record_simulated(simulator, writes, arguments.clients)
            digest = write_trace(trace, file)
        else:
            digest = record(simulator, writes, file).sha256
    injected = " ".join(f"{name}={count}" for name, count in simulator.injected.items())
    sys.stderr.write(
        f"profile={simulator.profile} seed={simulator.seed} objects={simulator.objects} "
        f"writes={simulator.writes} revision={simulator.model.revision} "
        f"injected={injected or 'none'} sha256={digest}\n"
    )
    return 0


def _record_etcd(arguments: argparse.Namespace) -> int:
    for flag in ("objects", "writes", "fault"):
        if getattr(arguments, flag):
            raise _UsageError(f"--{flag} is of the simulator: it doesn't go with --etcd")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d{1,5}", arguments.etcd):
        raise _UsageError(f"--etcd: expected HOST:PORT, not {arguments.etcd!r}")
    if arguments.clients == 0 or arguments.seed >= 1 << 64:
        raise _UsageError("a recording needs at least 1 client and a seed below 2**64")
    # Here, so that a simulated run needs neither protobuf nor grpcio.
    from etcdsim.record_etcd import record_etcd  # noqa: PLC0415

    with _Output(arguments.output) as file:
        trace = record_etcd(
            arguments.etcd,
            1.0 if arguments.duration_s is None else arguments.duration_s,
            clients=arguments.clients or 3,
            seed=arguments.seed,
            clock=time.monotonic,
            compact=arguments.compact,
        )
        digest = write_trace(trace, file)
    sys.stderr.write(
        f"etcd={trace.header.version} seed={trace.header.seed} clients={trace.header.clients} "
        f"{_sizes(trace)} sha256={digest}\n"
    )
    return 0


def _simulated(arguments: argparse.Namespace) -> Model | None:
    """What the member begins with, None for nothing."""
    if arguments.profile is None:
        for flag in ("objects", "writes"):
            if getattr(arguments, flag) is not None:
                raise _UsageError(f"--{flag} is of simulated traffic: it needs --profile")
        return None
    objects = 1000 if arguments.objects is None else arguments.objects
    writes = 1000 if arguments.writes is None else arguments.writes
    try:
        simulator = Simulator(arguments.profile, seed=arguments.seed, objects=objects)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    simulator.load()
    for _ in range(writes):
        simulator.step()
    return simulator.model


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from etcdsim.server.serving import Simulation  # noqa: PLC0415
        from etcdsim.server.wire_faults import WireFaults, parse_rates  # noqa: PLC0415
    except ImportError as error:
        sys.stderr.write(f"etcdsim: serve needs grpcio: pip install btreecache[etcd] ({error})\n")
        return 3
    if arguments.seed >= 1 << 64:
        raise _UsageError("--seed: must be below 2**64")
    try:
        rates = parse_rates(arguments.faults, arguments.fault)
        is_faulty = bool(rates) or arguments.admin_listen is not None
        faults = WireFaults(rates, arguments.seed) if is_faulty else None
    except ValueError as error:
        raise _UsageError(str(error)) from None
    lease_ids = Prng(arguments.seed).fork("lease ids")
    logging.getLogger("ZODB").addHandler(logging.NullHandler())  # errors come up as such
    try:
        simulation = Simulation(
            time.monotonic,
            lambda: 1 + lease_ids.below((1 << 63) - 1),
            version=arguments.emulated_version,
            model=_simulated(arguments),
            data_dir=arguments.data_dir,
            progress_notify_interval_s=arguments.progress_notify_interval,
        )
    except ValueError as error:
        raise _UsageError(f"--emulated-version: {error}") from None
    if simulation.is_durable:  # the ids of before are not to come again
        lease_ids = lease_ids.fork(str(simulation.member.raft_index))

    def ready(word: str, endpoint: str) -> None:
        print(f"{word} {endpoint}", flush=True)

    serving = simulation.serve(
        arguments.listen,
        ready,
        faults=faults,
        admin=arguments.admin_listen,
        truth=arguments.truth_listen,
    )
    asyncio.run(serving)
    return 0


def _open(output: str) -> BinaryIO:
    return sys.stdout.buffer if output == "-" else open(output, "wb")


class _Output:
    """The file, or stdout, for `with`."""

    def __init__(self, output: str) -> None:
        try:
            self._file = _open(output)
        except OSError as error:
            raise _UsageError(f"can't write {output}: {error.strerror}") from None

    def __enter__(self) -> BinaryIO:
        return self._file

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


def _load(path: str) -> tuple[bytes, Trace]:
    try:
        data = Path(path).read_bytes()
        return data, load_trace(data.splitlines())
    except OSError as error:
        raise _UsageError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise _UsageError(f"{path}: {error}") from None


def _rerun(path: str, trace: Trace) -> tuple[bytes, Trace]:
    try:
        return rerun(trace)
    except ValueError as error:
        raise _UsageError(f"{path}: {error}") from None


def _sizes(trace: Trace) -> str:
    responses = [response for watch in trace.watches for response in watch.responses]
    events = sum(len(response.events) for response in responses)
    return f"watches={len(trace.watches)} responses={len(responses)} events={events}"


def _validate_file(path: str, output: str) -> State:
    data, trace = _load(path)
    if trace.header.truth == "none":  # format 1: the run itself has to say what was true
        again, trace = _rerun(path, trace)
        if again.splitlines()[:1] != data.splitlines()[:1]:
            raise _UsageError(f"{path}: its run can't be run again")
    verdicts = validate(trace)
    state = overall(verdicts)
    if output == "json":
        done = {"file": path, "verdict": state, "verdicts": [as_json(one) for one in verdicts]}
        print(json.dumps(done))
        return state
    print(f"{path}: {state} {_sizes(trace)} truth={trace.header.truth}")
    reasons = {verdict.detail for verdict in verdicts}
    if state == "unknown" and len(reasons) == 1:
        print(f"{path}: all guarantees unknown: {reasons.pop()}")
        return state
    for verdict in verdicts:
        if verdict.state != "valid":
            print(f"{path}: {verdict}")
    return state


def _validate(arguments: argparse.Namespace) -> int:
    states: list[State] = []
    unreadable = 0
    for path in arguments.files:
        try:
            states.append(_validate_file(path, arguments.output))
        except _UsageError as error:
            sys.stderr.write(f"etcdsim: {error}\n")
            unreadable = 2
    if "broken" in states:
        return 1
    return unreadable or (3 if "unknown" in states else 0)


def _replay(arguments: argparse.Namespace) -> int:
    data, trace = _load(arguments.file)
    if trace.header.origin == "etcd":
        return _CODES[_validate_file(arguments.file, "text")]
    again, _ = _rerun(arguments.file, trace)
    if again == data:
        print(f"{arguments.file}: equal")
        return 0
    lines, others = data.splitlines(), again.splitlines()
    same = [line == other for line, other in zip(lines, others, strict=False)]
    number = same.index(False) if False in same else len(same)
    print(f"{arguments.file}: differs from line {number + 1} on")
    return 1


_COMMANDS = {
    "record": _record,
    "serve": _serve,
    "drive": _drive,
    "validate": _validate,
    "replay": _replay,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command -> its exit code."""
    try:
        arguments = _parser().parse_args(argv)
        return _COMMANDS[arguments.command](arguments)
    except (OSError, RecordError, DamagedLogError) as error:
        sys.stderr.write(f"etcdsim: {error}\n")
        return 3
    except (_UsageError, DataDirError) as error:
        sys.stderr.write(f"etcdsim: {error}\n")
        return 2
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
