"""The house rules that a test can hold: import order, the oracle rule, sizes, what is banned."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("btreecache/**/*.py"), *ROOT.glob("etcdsim/**/*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

#: What of etcdsim btreecache may use, and where; None: all of it.
ETCDSIM_USERS = {
    "btreecache/sources/etcd.py": {"etcdsim.wire", "etcdsim"},
    "btreecache/sources/etcd_connection.py": {"etcdsim.wire", "etcdsim"},
    "btreecache/sources/simulated.py": None,
    "btreecache/cli/simulation.py": None,
}


def listing(package: str) -> list[str]:
    """The modules and folders of `package` in the order of docs/design.md."""
    text = (ROOT / "docs/design.md").read_text()
    block = text.split(f"    {package}/", 1)[1].split("\n    etcdsim/")[0].split("\n\n")[0]
    names = []
    for line in block.splitlines()[1:]:
        if re.match(r" {8}\S", line):
            names += re.findall(r"([a-z_]+(?:\.py|/))(?=\s)", line.strip() + " ")
    return names


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, with its line; those for type checking only left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def place(module: str, package: str, order: list[str]) -> int | None:
    """Index in the listing of the room that `module` belongs to."""
    parts = module.split(".")
    if parts[0] != package or len(parts) == 1:
        return None
    for name in (f"{parts[1]}.py", f"{parts[1]}/"):
        if name in order:
            return order.index(name)
    return None


@pytest.mark.parametrize("package", ["btreecache", "etcdsim"])
def test_the_design_lists_every_module(package: str) -> None:
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / package).iterdir()
        if (path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))))
        and not path.name.startswith("__")
    }
    assert rooms == set(listing(package))


@pytest.mark.parametrize("package", ["btreecache", "etcdsim"])
def test_a_module_imports_only_modules_above_it(package: str) -> None:
    order = listing(package)
    wrong = []
    for path in SOURCES:
        own = place(".".join(path.relative_to(ROOT).with_suffix("").parts), package, order)
        if own is None:
            continue
        for module, line in imports(path):
            other = place(module, package, order)
            if other is not None and other > own:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, wrong


def test_the_oracle_stands_alone() -> None:
    wrong = [
        f"{name}:{line}"
        for name, path in zip(NAMES, SOURCES, strict=True)
        for module, line in imports(path)
        if name.startswith("etcdsim/") and module.split(".")[0] == "btreecache"
    ]
    assert not wrong, wrong


def test_btreecache_uses_the_simulator_only_as_a_source() -> None:
    wrong = []
    for name, path in zip(NAMES, SOURCES, strict=True):
        for module, line in imports(path):
            if not name.startswith("btreecache/") or module.split(".")[0] != "etcdsim":
                continue
            allowed = ETCDSIM_USERS.get(name, set())
            if allowed is not None and module not in allowed:
                wrong.append(f"{name}:{line} imports {module}")
    assert not wrong, wrong


def test_importing_btreecache_is_cheap() -> None:
    heavy = [
        "ZODB",
        "BTrees",
        "grpc",
        "google.protobuf",
        "starlette",
        "matplotlib",
        "rich",
        "etcdsim",
    ]
    code = f"import sys, btreecache; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    path = ROOT / name
    lines = path.read_text().splitlines()
    assert len(lines) <= MODULE_LINES_MAX
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{function.name}: {length} lines"


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text())
    assert ast.get_docstring(tree), "module"
    missing = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_time_and_randomness_are_arguments(name: str) -> None:
    """Defaults may name a clock or a generator; nothing calls the global ones."""
    banned = {"time.time", "time.time_ns", "random.random", "random.randint", "random.choice",
              "random.seed", "random.shuffle", "datetime.now", "datetime.datetime.now"}  # fmt: skip
    calls = [
        f"{ast.unparse(node.func)} at line {node.lineno}"
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in banned
    ]
    if name.startswith("etcdsim/") and not name.endswith(("cli.py", "server.py")):
        modules = {module.split(".")[0] for module, _ in imports(ROOT / name)}
        calls += sorted(modules & {"time", "random", "secrets", "uuid"})
    assert not calls


def test_the_public_surface() -> None:
    import btreecache

    promised = {"Tree", "Store", "Cache", "Snapshot", "Checker", "Follower", "ListOptions",
                "WatchOptions", "GetOptions", "Features"}  # fmt: skip
    errors = {"BtreecacheError", "BadRequest", "Compacted", "Conflict", "FeedFault",
              "FutureRevision", "NotReady", "SourceError", "Unavailable"}  # fmt: skip
    assert promised | errors <= set(btreecache.__all__)
    assert sorted(btreecache.__all__) == btreecache.__all__
    for name in btreecache.__all__:
        assert getattr(btreecache, name).__module__.startswith("btreecache.") or name == "ABSENT"


def test_the_wire_loads_no_simulator() -> None:
    code = "import sys; from etcdsim import wire; print('BTrees' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_etcdsim_exports_what_it_says() -> None:
    import etcdsim

    assert set(etcdsim._HOMES) == set(etcdsim.__all__)
    assert all(getattr(etcdsim, name) is not None for name in etcdsim.__all__)
    with pytest.raises(AttributeError):
        etcdsim.nothing  # noqa: B018


def test_what_speaks_to_other_software_is_marked() -> None:
    """`make test` needs no server: one file without the mark made it look for an etcd."""
    paths = ROOT.glob("tests/**/test_*.py")
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}
    speaking = {name: text for name, text in texts.items() if "import EtcdServer" in text}
    assert speaking
    assert not [name for name, text in speaking.items() if "pytest.mark.interop" not in text]
