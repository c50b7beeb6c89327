"""The integration suites of aetcd and etcetra, each on a real etcd and on etcdsim, test by test.

    python -m tests.suites --suites .cache/suites --etcd .cache/etcd/3.5/etcd

Each suite runs in its own environment, which `.ci/install-suites` makes. A test that ends
differently on the two is a failure, unless `LEFT_OUT` says why it may. Exit code 1 when there was
a failure.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from tests.interop.etcd_server import EtcdServer
from tests.interop.etcdsim_server import EtcdsimServer

TIMEOUT_S = 300
#: The tests of each suite: where they are.
SUITES = {"aetcd": "tests/integration", "etcetra": "tests"}
#: What a test ends in that needs what etcdsim leaves out; the reasons are in docs/etcdsim.md.
LEFT_OUT = {
    "aetcd test_maintenance.test_snapshot": "a snapshot is no bolt file",
}
Outcomes = dict[str, str]


def outcomes(report: Path) -> Outcomes:
    """How each test of a JUnit report ended."""
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        ends = sorted({child.tag for child in case} & {"failure", "error", "skipped"})
        # A fixture that fails behind its test makes a second entry.
        if ends or name not in found:
            found[name] = " and ".join(ends) or "passed"
    return found


def run(suite: str, directory: Path, endpoint: str, etcdctl: Path) -> Outcomes:
    """One suite on one server, which nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="btreecache-suite-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [
            str(directory.resolve() / suite / "venv" / "bin" / "python"), "-m", "pytest",
            SUITES[suite], "-p", "pointed", "-p", "no:cacheprovider", "-q", "--rootdir=.",
            "-c", os.devnull, "-o", "asyncio_mode=auto", f"--junitxml={report}",
        ]  # fmt: skip
        environment = {
            "PATH": f"{etcdctl.resolve().parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parent),
            "SUITE_ENDPOINT": endpoint,
            "TEST_ETCD_HTTP_URL": f"http://{endpoint}",
        }
        done = subprocess.run(
            command,
            check=False,
            cwd=directory / suite,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if not report.exists():
            raise RuntimeError(f"{suite} did not run: {done.stdout}{done.stderr}")
        return outcomes(report)


def on_etcd(suite: str, directory: Path, binary: Path) -> Outcomes:
    with (
        tempfile.TemporaryDirectory(prefix="btreecache-etcd-") as data_dir,
        EtcdServer(binary, Path(data_dir)) as server,
    ):
        return run(suite, directory, server.endpoint, binary)


def on_etcdsim(suite: str, directory: Path, binary: Path) -> Outcomes:
    with EtcdsimServer() as server:
        return run(suite, directory, server.endpoint, binary)


def compare(suite: str, real: Outcomes, simulated: Outcomes) -> bool:
    """Prints what differs; whether something did that mustn't."""
    failed = not real
    for name in sorted(real.keys() | simulated.keys()):
        there, here = real.get(name, "missing"), simulated.get(name, "missing")
        if there == here == "passed":
            continue
        reason = LEFT_OUT.get(f"{suite} {name}", "") if there == "passed" else ""
        failed = failed or (there != here and not reason)
        print(f"  {name}: etcd {there}, etcdsim {here}{reason and f' ({reason})'}")
    for store, found in (("etcd", real), ("etcdsim", simulated)):
        counts = ", ".join(f"{n} {end}" for end, n in sorted(Counter(found.values()).items()))
        print(f"{suite} on {store}: {len(found)} tests, {counts}")
    return failed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.suites")
    parser.add_argument("--suites", type=Path, default=Path(".cache/suites"))
    parser.add_argument("--etcd", type=Path, default=Path(".cache/etcd/3.5/etcd"))
    arguments = parser.parse_args(argv)
    # They wait more than they work: all at once, each on a server of its own.
    with ThreadPoolExecutor() as pool:
        pairs = {
            suite: [
                pool.submit(each, suite, arguments.suites, arguments.etcd)
                for each in (on_etcd, on_etcdsim)
            ]
            for suite in SUITES
        }
        failures = [compare(suite, *(done.result() for done in pairs[suite])) for suite in SUITES]
    return any(failures)


if __name__ == "__main__":
    sys.exit(main())
