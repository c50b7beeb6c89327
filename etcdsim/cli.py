"""The `etcdsim` command.

Exit codes: 0 done, 2 a mistake in the arguments (one line on stderr), 3 anything else that went
wrong. stdout is data, stderr is for people.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import BinaryIO, NoReturn

from etcdsim.faults import FAULTS, parse_fault
from etcdsim.history import record
from etcdsim.simulator import Simulator
from etcdsim.traffic import PROFILES


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="etcdsim", description="A deterministic simulation of etcd.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    recording = commands.add_parser(
        "record",
        help="write a trace of seeded traffic",
        description="Write a trace: what a client gets that lists and watches a seeded run.",
    )
    recording.add_argument(
        "--profile",
        default="kubernetes",
        help=f"workload: {', '.join(PROFILES)} (default: %(default)s)",
    )
    recording.add_argument("--seed", type=_integer, default=0, help="default: %(default)s")
    recording.add_argument(
        "--objects", type=_integer, default=1000, help="objects at the start (default: %(default)s)"
    )
    recording.add_argument(
        "--writes", type=_integer, default=1000, help="write revisions (default: %(default)s)"
    )
    recording.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=RATE",
        help=f"may be repeated: {', '.join(FAULTS)}, each with a rate from 0 to 1",
    )
    recording.add_argument(
        "--output", default="-", metavar="FILE", help="- for stdout (default: %(default)s)"
    )
    return parser


def _record(arguments: argparse.Namespace) -> int:
    try:
        simulator = Simulator(
            arguments.profile,
            seed=arguments.seed,
            objects=arguments.objects,
            faults=[parse_fault(text) for text in arguments.fault],
        )
        file = _open(arguments.output)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    except OSError as error:
        raise _UsageError(f"can't write {arguments.output}: {error.strerror}") from None
    try:
        trace = record(simulator, arguments.writes, file)
        file.flush()
    finally:
        if file is not sys.stdout.buffer:
            file.close()
    injected = " ".join(f"{name}={count}" for name, count in simulator.injected.items())
    sys.stderr.write(
        f"profile={simulator.profile} seed={simulator.seed} objects={simulator.objects} "
        f"writes={simulator.writes} revision={simulator.model.revision} "
        f"injected={injected or 'none'} sha256={trace.sha256}\n"
    )
    return 0


def _open(output: str) -> BinaryIO:
    return sys.stdout.buffer if output == "-" else open(output, "wb")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command -> its exit code."""
    try:
        return _record(_parser().parse_args(argv))
    except _UsageError as error:
        sys.stderr.write(f"etcdsim: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"etcdsim: {error}\n")
        return 3
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
