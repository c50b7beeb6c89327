"""The command `etcdsim serve`: its first line, its end, and one line for every mistake."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.request import urlopen

import pytest

grpc = pytest.importorskip("grpc")

from etcdsim import services, wire  # noqa: E402
from etcdsim.cli import main  # noqa: E402
from etcdsim.server.log import Log  # noqa: E402

SERVE = [sys.executable, "-W", "error", "-m", "etcdsim", "serve"]


def ask(endpoint: str, method: wire.Method, **fields: Any) -> Any:
    with grpc.insecure_channel(endpoint) as channel:
        call = channel.unary_unary(
            method.path, method.request.SerializeToString, method.response.FromString
        )
        return call(method.request(**fields), timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_ready_to_the_end(number: signal.Signals) -> None:
    command = [*SERVE, "--listen=127.0.0.1:0", "--emulated-version=3.6.11"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        word, endpoint = process.stdout.readline().decode().split()
        assert word == "READY"
        host, _, port = endpoint.rpartition(":")
        assert (host, int(port) > 0) == ("127.0.0.1", True)
        status = ask(endpoint, wire.STATUS)
        assert (status.version, status.header.revision) == ("3.6.11", 1)
        with grpc.insecure_channel(endpoint) as channel:
            call = channel.stream_stream(
                wire.WATCH.path, wire.WatchRequest.SerializeToString, wire.WatchResponse.FromString
            )
            requests = SimpleQueue[Any]()
            requests.put(wire.WatchRequest(create_request={"key": b"a"}))
            responses = call(iter(requests.get, None))
            assert next(responses).created
            process.send_signal(number)
            with pytest.raises(grpc.RpcError) as stopped:
                next(responses)
            requests.put(None)
        assert stopped.value.code() == grpc.StatusCode.UNAVAILABLE
        # The second is gRPC's own, where the call had not ended within the grace.
        assert stopped.value.details() in ("etcdserver: server stopped", "Cancelling all calls")
        rest, errors = process.communicate(timeout=10)
        assert (process.returncode, rest, errors) == (0, b"", b"")


def test_it_begins_with_simulated_traffic() -> None:
    command = [*SERVE, "--listen=127.0.0.1:0", "--profile=churn", "--seed=7"]
    command += ["--objects=10", "--writes=30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().decode().split()[1]
        everything = ask(endpoint, wire.RANGE, key=b"\0", range_end=b"\0")
        assert everything.header.revision > 30
        assert everything.kvs
        process.terminate()
        assert process.wait(10) == 0


def test_faults_with_an_admin_endpoint_and_the_truth_beside() -> None:
    command = [*SERVE, "--listen=127.0.0.1:0", "--admin-listen=[::1]:0", "--faults=flaky"]
    command += ["--truth-listen=127.0.0.1:0", "--fault=unavailable=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode().split() for _ in range(3)]
        assert [word for word, _ in lines] == ["READY", "ADMIN", "TRUTH"]
        faulty, admin, truth = (endpoint for _, endpoint in lines)
        with pytest.raises(grpc.RpcError) as failed:
            ask(faulty, wire.PUT, key=b"a")
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
        ask(truth, wire.PUT, key=b"b")
        assert ask(truth, wire.RANGE, key=b"b").count == 1
        # Clients hear of the faulty one only.
        urls = [f"http://{faulty}"]
        assert [*ask(truth, services.MEMBER_LIST).members[0].clientURLs] == urls
        with urlopen(f"http://{admin}/faults", timeout=10) as answer:
            assert json.load(answer)["unavailable"] == {"rate": 1.0, "injected": 1}
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=10)
        assert (process.returncode, rest, errors) == (0, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "nowhere"], "argument --listen: expected HOST:PORT, not 'nowhere'"),
        (["--emulated-version", "3.3.27"], "--emulated-version: not a version of etcd"),
        (["--objects", "5"], "--objects is of simulated traffic: it needs --profile"),
        (["--profile", "nothing"], "nothing"),
        (["--progress-notify-interval", "5"], "not a duration"),
        (["--seed", str(1 << 64)], "--seed: must be below 2**64"),
        (["--fault", "nothing=1"], "unknown fault 'nothing': known faults are drop,"),
        (["--fault", "drop=2"], "fault drop: the rate must be from 0 to 1"),
        (["--faults", "none"], "unknown faults 'none': known are flaky, lossy, hostile"),
        (["--admin-listen", "0.0.0.0:0"], "--admin-listen: only on loopback, not on 0.0.0.0"),
        (["--admin-listen", "example.com:0"], "--admin-listen: only on loopback"),
        (["--truth-listen", "x"], "argument --truth-listen: expected HOST:PORT, not 'x'"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--listen=127.0.0.1:0", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [*SERVE, f"--listen={address}"],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            check=False,
        )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"etcdsim: can't listen on {address}\n"


def test_without_grpcio() -> None:
    program = (
        "import sys; sys.modules['grpc'] = None; from etcdsim.cli import main;"
        "sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("etcdsim: serve needs grpcio: pip install btreecache[etcd]")
    assert done.stderr.count("\n") == 1


def test_a_data_directory_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["serve", "--listen=127.0.0.1:0", "--data-dir"]
    log = Log(tmp_path / "used")
    assert main([*arguments, str(tmp_path / "used")]) == 2
    log.close()
    (tmp_path / "file").touch()
    assert main([*arguments, str(tmp_path / "file")]) == 2
    (tmp_path / "log.fs").write_bytes(b"something else")
    assert main([*arguments, str(tmp_path)]) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"etcdsim: {tmp_path}/used: another process uses it",
        f"etcdsim: {tmp_path}/file: File exists",
        f"etcdsim: {tmp_path}/log.fs: not a log of etcdsim",
    ]


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    command = [*SERVE, "--listen=127.0.0.1:0", f"--data-dir={tmp_path}"]
    command += ["--profile=churn", "--objects=10", "--writes=30"]
    grants: list[int] = []
    for start in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            endpoint = process.stdout.readline().decode().split()[1]
            grants.append(ask(endpoint, services.LEASE_GRANT, TTL=600).ID)
            if start == 0:
                ask(endpoint, wire.PUT, key=b"mine", value=b"v", lease=grants[0])
            everything = ask(endpoint, wire.RANGE, key=b"\0", range_end=b"\0")
            if start == 0:
                before = everything
            process.kill()
    assert before.header.revision > 32
    assert everything == before
    assert grants[0] != grants[1]
