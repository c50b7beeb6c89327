"""What README and quickstart show of a real etcd, run against one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.interop.etcd_server import EtcdServer, Writer
from tests.project.test_documents import BIN, blocks, commands, run

pytestmark = pytest.mark.interop

SHOWN = "127.0.0.1:2379"
COMMANDS = [line for _, line in commands() if "--etcd" in line]
FOR_EVER = [line for line in COMMANDS if "--interval" in line and "--for" not in line]


@pytest.fixture
def endpoint(etcd: EtcdServer, writer: Writer) -> str:
    for number in range(200):
        writer.put(b"/registry/pods/%d" % number, b"pod")
    return etcd.endpoint


def test_python_blocks(endpoint: str) -> None:
    shown = blocks("python", needs_etcd=True)
    assert shown
    for _, _, text in shown:
        code = text.replace(SHOWN, endpoint)
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == "200 keys at revision 201\nconsistent\n"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line not in FOR_EVER])
def test_commands_that_end(endpoint: str, command: str, tmp_path: Path) -> None:
    command = command.replace(SHOWN, endpoint).replace(
        "--for 60s --interval 10s", "--for 3s --interval 1s"
    )
    ended = run(command, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "consistent" in ended.stdout


@pytest.mark.parametrize("command", FOR_EVER)
def test_commands_that_go_on_for_ever(endpoint: str, command: str, tmp_path: Path) -> None:
    program, *rest = command.replace(SHOWN, endpoint).split()
    with subprocess.Popen(
        [str(BIN / program), *rest],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.rstrip().endswith("consistent")
