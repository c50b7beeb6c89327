"""`btreecache serve` and `btreecache features` as processes: flags, first line, signals, ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from btreecache.cli import main
from btreecache.errors import BadRequest
from btreecache.features import GATES
from btreecache.server.listening import parse_listen

ROOT = Path(__file__).parents[2]
BTREECACHE = str(Path(sys.executable).parent / "btreecache")
TIMEOUT_S = 20


@contextmanager
def served(*flags: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server of the simulator, and a client for it."""
    command = [BTREECACHE, "serve", "--sim", "kubernetes", "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr.read()
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT_S)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_watches(number: signal.Signals) -> None:
    # One of them announces its end first; the second signal is the end.
    announced = number is signal.SIGTERM
    delay = ["--shutdown-delay", "1h"] if announced else []
    flags = "--objects", "60", "--writes", "50", "--warm", "pods,nodes"
    with served(*flags, *delay) as (process, client):
        while client.get("/readyz").status_code != 200:
            pass
        assert client.get("/readyz?verbose").text == (
            "[+]ping ok\n[+]pods ok\n[+]nodes ok\nreadyz check passed\n"
        )
        with client.stream("GET", "/api/v1/pods?watch=1") as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines))["type"] == "ADDED"
            process.send_signal(number)
            if announced:
                while client.get("/readyz/shutdown").status_code != 500:
                    pass
                assert "[-]shutdown failed: process is shutting down" in client.get("/readyz").text
                assert client.get("/livez").text == "ok"
                assert client.get("/api/v1/nodes").status_code == 200
                process.send_signal(number)
            # What was under way is said, and the answer ends as an answer does.
            assert all(json.loads(line)["type"] != "ERROR" for line in lines)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_list_and_the_changes_after_it_make_the_later_list() -> None:
    """I6 and I4 from end to end, with a writer at work."""
    with served("--objects", "200", "--writes", "300", "--seed", "4") as (_, client):
        listed = client.get("/api/v1/pods").json()
        revision = listed["metadata"]["resourceVersion"]
        state = {item["metadata"]["name"]: item for item in listed["items"]}
        watch = f"/api/v1/pods?watch=1&timeoutSeconds=2&resourceVersion={revision}"
        changes = 0
        for line in client.get(watch).text.splitlines():
            event = json.loads(line)
            found = event["object"]
            assert int(found["metadata"]["resourceVersion"]) >= int(revision)
            revision, name = found["metadata"]["resourceVersion"], found["metadata"]["name"]
            assert (event["type"] == "ADDED") == (name not in state)
            if event["type"] == "DELETED":
                del state[name]
            else:
                state[name] = found
            changes += 1
        assert changes > 20
        exact = f"/api/v1/pods?resourceVersion={revision}&resourceVersionMatch=Exact"
        then = {item["metadata"]["name"]: item for item in client.get(exact).json()["items"]}
        for item in state.values():
            item.pop("kind", None)
            item.pop("apiVersion", None)
        assert then == state


def test_gates_restore_the_older_behaviour() -> None:
    gates = "WatchList=false,ListFromCacheSnapshot=false,ConsistentListFromCache=false"
    with served("--objects", "30", "--writes", "0", "--feature-gates", gates) as (_, client):
        asked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        refused = client.get(f"/api/v1/pods?watch=1&{asked}")
        assert refused.status_code == 422
        assert "WatchList feature gate" in refused.text
        first = client.get("/api/v1/pods?limit=2").json()
        token = first["metadata"]["continue"]
        rest = client.get(f"/api/v1/pods?continue={token}").json()
        whole = client.get("/api/v1/pods").json()
        assert first["items"] + rest["items"] == whole["items"]


def test_a_port_that_is_taken_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = main(["serve", "--sim", "churn", "--objects", "1", "--listen", f"127.0.0.1:{port}"])
    assert code == 3
    assert capfd.readouterr().err == (
        f"btreecache: can't listen on 127.0.0.1 port {port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--sim", "churn", "--etcd", "127.0.0.1:1"],
        ["--sim", "nothing"],
        ["--sim", "churn", "--fault", "no=1"],
        ["--sim", "churn", "--cacert", "x"],
        ["--sim", "churn", "--listen", "0.0.0.0:8080"],
        ["--sim", "churn", "--listen", ":8080"],
        ["--sim", "churn", "--listen", "127.0.0.1"],
        ["--sim", "churn", "--warm", "nopes"],
        ["--sim", "churn", "--resource", "nonsense"],
        ["--sim", "churn", "--resource", "v1/a:A=/x", "--resource", "v1/a:A=/y"],
        ["--sim", "churn", "--feature-gates", "No=true"],
        ["--sim", "churn", "--objects", "0"],
        ["--sim", "churn", "--keep-age", "1h"],
        ["--sim", "churn", "--archive", "x", "--thin", "1h=1m,1m=1h,"],
        ["--sim", "churn", "--archive", "x", "--history", "window"],
        ["--sim", "churn", "--listen", "127.0.0.1:0", "--archive", "nosuch://x"],
        ["--etcd", "127.0.0.1:1", "--writes", "0"],
        ["--etcd", "127.0.0.1:1", "--seed", "0"],
        ["--etcd", "127.0.0.1:1", "--cacert", "/nowhere"],
    ],
)
def test_usage(flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *flags])
    assert ended.value.code == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from btreecache.cli import main\n"
        "sys.exit(main(['serve', '--sim', 'churn']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ended.returncode == 3
    assert ended.stderr == (
        "btreecache: uvicorn is not installed: pip install 'btreecache[serve]'\n"
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("127.9.9.9:65535", ("127.9.9.9", 65535)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_where_to_listen(text: str, wanted: tuple[str, int]) -> None:
    assert parse_listen(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":80", "0.0.0.0:80", "[::]:80", "::1:80", "10.0.0.1:80", "example.com:80",
     "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:\u0661",
     "127.1:80", "[::1:80", "localhost.evil:80", "127.0.0.1:" + "9" * 5000],
)  # fmt: skip
def test_where_not_to_listen(text: str) -> None:
    with pytest.raises(BadRequest, match="--listen"):
        parse_listen(text)


def test_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features"]) == 0
    shown = capsys.readouterr().out
    for gate in GATES:
        assert f"{gate}\n  on:  {gate.on}\n  off: {gate.off}\n" in shown


def test_every_flag_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    flags = set(re.findall(r"(?<![\w-])--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs/serve.md").read_text()
    cells = " ".join(re.findall(r"^\| (`--.*?) \|", page, re.M))
    assert set(re.findall(r"`(--[a-z-]+)", cells)) == flags


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_converted_as_they_come_or_when_asked_for_is_the_same(form: str) -> None:
    flags = "--objects", "60", "--writes", "0", "--seed", "2", "--history", "window"
    answers = []
    for more in ((), ("--serve-as", form)):
        with served(*flags, *more) as (_, client):
            answers.append(client.get("/api/v1/pods").content)
            accept = {"Accept": "application/vnd.kubernetes.protobuf"}
            answers.append(client.get("/api/v1/pods", headers=accept).content)
    assert answers[:2] == answers[2:]
    assert len(json.loads(answers[0])["items"]) > 10
