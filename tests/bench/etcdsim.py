"""`etcdsim serve` beside a real etcd: `python -m tests.bench.etcdsim [--rounds N] [--etcd FILE]`.

Both are processes of their own and asked in turn by this one, with a client that costs little
beside them; the real one keeps its data in /dev/shm, the simulator its own in memory. A cell is the
median over rounds of etcd's time divided by the simulator's: above 1 the simulator is faster. The
time of the server's own processor says the same without what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from statistics import median
from typing import NamedTuple

from etcdsim import wire
from etcdsim.model import Model, prefix_end
from tests.bench.h2_client import Connection
from tests.bench.table import ratio_text
from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

CLIENTS = 8
KEYS = 10_000  # of a range
PREFIX, RANGE_PREFIX = b"/registry/pods/", b"/registry/configmaps/"
VALUE = b"x" * 200
_TXN_PUTS = 50  # a request has to fit one frame


class Took(NamedTuple):
    """Seconds: on the clock, and of the server's processor time."""

    wall: float
    cpu: float


class Server:
    """A server that is measured. One thread."""

    def __init__(self, endpoint: str, pid: int) -> None:
        self.endpoint, self._tasks = endpoint, Path(f"/proc/{pid}/task")

    def _cpu_s(self) -> float:
        stats = [(task / "schedstat").read_text() for task in self._tasks.iterdir()]
        return sum(int(stat.split()[0]) for stat in stats) / 1e9

    def timed(self, work: Callable[[], None]) -> Took:
        """How long `work` takes, here and there."""
        cpu, wall = self._cpu_s(), time.perf_counter()
        work()
        return Took(time.perf_counter() - wall, self._cpu_s() - cpu)


def put_request(number: int) -> bytes:
    """A put of the key of that number."""
    key = PREFIX + b"default/pod-%08d" % number
    return bytes(wire.PutRequest(key=key, value=VALUE).SerializeToString())


def fill(connection: Connection) -> None:
    """Write the keys of the range."""
    for start in range(0, KEYS, _TXN_PUTS):
        keys = (RANGE_PREFIX + b"default/%08d" % n for n in range(start, start + _TXN_PUTS))
        puts = [wire.RequestOp(request_put=wire.PutRequest(key=k, value=VALUE)) for k in keys]
        connection.ask(wire.TXN.path, wire.TxnRequest(success=puts).SerializeToString())


def put_all(endpoint: str, requests: list[bytes], clients: int) -> None:
    """Write with so many clients, each its next put once its last one is answered."""
    left = iter(requests)
    with ExitStack() as stack:
        selector = stack.enter_context(DefaultSelector())
        connections = [stack.enter_context(Connection(endpoint)) for _ in range(clients)]
        for connection in connections:
            selector.register(connection, EVENT_READ, connection)
            connection.start(wire.PUT.path, next(left))
        answered = 0
        while answered < len(requests):
            for key, _ in selector.select(60):
                for _, message in key.data.receive():
                    if message is None:
                        continue
                    answered += 1
                    if (request := next(left, None)) is not None:
                        key.data.start(wire.PUT.path, request)


def read_range(connection: Connection) -> int:
    """Read the 10,000 keys -> the bytes of the response."""
    request = wire.RangeRequest(key=RANGE_PREFIX, range_end=prefix_end(RANGE_PREFIX))
    data = connection.ask(wire.RANGE.path, request.SerializeToString())
    found = wire.RangeResponse.FromString(data).count
    if found != KEYS:
        raise RuntimeError(f"{found} keys in place of {KEYS}")
    return len(data)


def watch_puts(server: Server, watchers: int, requests: list[bytes]) -> Took:
    """Puts of 8 clients until every watcher has had every event."""
    create = wire.WatchCreateRequest(key=PREFIX, range_end=prefix_end(PREFIX))
    request = wire.WatchRequest(create_request=create).SerializeToString()
    with Connection(server.endpoint) as connection:
        for _ in range(watchers):
            connection.start(wire.WATCH.path, request, ends=False)
        for _ in _responses(connection, watchers):
            pass

        def work() -> None:
            put_all(server.endpoint, requests, CLIENTS)
            events = 0
            while events < watchers * len(requests):
                events += sum(
                    len(wire.WatchResponse.FromString(message).events)
                    for _, message in connection.receive()
                    if message is not None
                )

        return server.timed(work)


def _responses(connection: Connection, count: int) -> Iterator[bytes]:
    while count:
        for _, message in connection.receive():
            if message is not None:
                count -= 1
                yield message


def model_puts(count: int) -> Took:
    """Puts in this process, without any server."""
    model, requests = Model(), [(PREFIX + b"default/pod-%08d" % n, VALUE) for n in range(count)]
    wall, cpu = time.perf_counter(), time.process_time()
    for key, value in requests:
        model.put(key, value)
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def one_round(server: Server, puts: int) -> dict[str, Took]:
    """Row -> what it took. The same requests for every server."""
    requests = [put_request(number) for number in range(puts)]
    took = {
        f"puts, {clients} client{'s'[: clients - 1]}": server.timed(
            lambda: put_all(server.endpoint, requests, clients)
        )
        for clients in (1, CLIENTS)
    }
    with Connection(server.endpoint) as connection:
        took[f"range of {KEYS:,} keys"] = server.timed(lambda: _read_often(connection, 5))
    took["events to 1 watcher"] = watch_puts(server, 1, requests)
    took["events to 50 watchers"] = watch_puts(server, 50, requests[: puts // 4])
    return took


def _read_often(connection: Connection, times: int) -> None:
    for _ in range(times):
        read_range(connection)


def measure(real: Server, ours: Server, rounds: int, puts: int) -> dict[str, Took]:
    """Row -> etcd's time over the simulator's: medians of pairs that ran one after the other.

    One round of each before doesn't count.
    """
    for server in (real, ours):
        with Connection(server.endpoint) as connection:
            fill(connection)
        one_round(server, puts)
    pairs: dict[str, list[Took]] = {}
    for number in range(rounds):
        order = (real, ours) if number % 2 else (ours, real)
        took = {server: one_round(server, puts) for server in order}
        took[ours]["puts in process, beside etcd's to 1 client"] = model_puts(puts)
        took[real]["puts in process, beside etcd's to 1 client"] = took[real]["puts, 1 client"]
        for row, mine in took[ours].items():
            theirs = took[real][row]
            pair = Took(theirs.wall / mine.wall, theirs.cpu / mine.cpu)
            pairs.setdefault(row, []).append(pair)
    return {
        row: Took(median(pair.wall for pair in all_), median(pair.cpu for pair in all_))
        for row, all_ in pairs.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table -> the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--puts", type=int, default=1000, help="of a round (default: %(default)s)")
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    arguments = parser.parse_args(argv)
    if not arguments.etcd.exists():
        sys.stderr.write(f"no etcd at {arguments.etcd}: .ci/install-etcd .cache/etcd\n")
        return 2
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="btreecache-bench-", dir=memory) as folder,
        EtcdServer(arguments.etcd, Path(folder)) as etcd,
        EtcdsimServer() as simulator,
    ):
        real, ours = Server(etcd.endpoint, etcd.pid), Server(simulator.endpoint, simulator.pid)
        rows = measure(real, ours, arguments.rounds, arguments.puts)
    say = sys.stdout.write
    say("| etcdsim beside etcd, above 1 faster | by the clock | by the server's CPU |\n")
    say("|---|---|---|\n")
    for row, took in rows.items():
        say(f"| {row} | {ratio_text(took.wall)}x | {ratio_text(took.cpu)}x |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
