"""What README and quickstart show is run: Python blocks as they stand, commands as they stand.

`make check` and `make test` are run by CI itself, in a fresh clone. What needs an etcd is in
tests/interop/test_documents_etcd.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/quickstart.md", "docs/etcdsim.md", "docs/archive.md"]
BIN = Path(sys.executable).parent

BLOCK = re.compile(r"(?P<needs><!-- needs: \w+ -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.S)


def blocks(kind: str, needs_etcd: bool) -> list[tuple[str, int, str]]:
    """(page, line, text) of every block of a kind in the pages."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        for match in BLOCK.finditer(text):
            if match["kind"] == kind and bool(match["needs"]) == needs_etcd:
                found.append((page, text.count("\n", 0, match.start()) + 1, match["text"]))
    return found


def commands() -> list[tuple[str, str]]:
    """Every command line of the pages, comments taken off."""
    return [
        (page, line.removeprefix("$ "))
        for page, _, text in blocks("console", needs_etcd=False)
        for line in text.splitlines()
        if line.startswith("$ ")
    ]


def run(command: str, where: Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run one of our own commands from the environment that the tests run in."""
    program, *rest = shlex.split(command, comments=True)
    return subprocess.run(
        [str(BIN / program), *rest],
        cwd=where, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order(page: str) -> None:
    shown = [text for name, _, text in blocks("python", needs_etcd=False) if name == page]
    assert shown
    code = "\n".join(shown)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


LOCAL = [(page, line) for page, line in commands() if "--etcd" not in line]


@pytest.mark.parametrize(("page", "command"), LOCAL, ids=[line for _, line in LOCAL])
def test_commands_do_what_the_page_says(page: str, command: str, tmp_path: Path) -> None:
    if command.startswith("make "):
        target = command.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
        return
    ended = run(command, tmp_path)
    assert ended.returncode == (1 if "check" in command and "--fault" in command else 0), (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_the_readme_shows_the_two_commands() -> None:
    assert [line.split("#")[0].strip() for _, line in commands()][:2] == ["make check", "make test"]


ARCHIVE = ("info", "verify", "pack", "export", "import")


@pytest.mark.parametrize(
    ("commands", "heading"),
    [
        (["check"], "check"),
        (["get", "list", "watch", "diff", "log"], "get, list, watch, diff, log"),
        ([f"archive {name}" for name in ARCHIVE], "archive"),
    ],
)
def test_every_flag_is_documented(commands: list[str], heading: str) -> None:
    page = (ROOT / "docs/cli.md").read_text()
    shown = page.split(f"## btreecache {heading}\n")[1].split("\n## ")[0]
    flags: set[str] = set()
    for command in commands:
        help_text = run(f"btreecache {command} --help", ROOT).stdout
        flags |= set(re.findall(r"--[a-z-]+", help_text)) - {"--help"}
    assert len(flags) > 7
    assert not [flag for flag in sorted(flags) if f"`{flag}" not in shown]
    promised = set(re.findall(r"`(--[a-z-]+)", shown))
    assert promised <= flags, "the page names a flag that does not exist"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "tests/README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_pages_name_exist() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for name in re.findall(
            r"`((?:tests|btreecache|etcdsim|docs|\.ci)/[\w./-]+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
