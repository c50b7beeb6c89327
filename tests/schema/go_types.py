"""Go type declarations as data: just the Go that Kubernetes API types are written in.

A file is read line by line: `type` at the margin begins a declaration, `}` at the margin ends a
struct. Whatever else stands in the file is passed over. A line of a struct that is not understood
is an error, so that nothing is left out silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_DECLARED = re.compile(r"^type\s+(\w+)\s+(=\s*)?(.+?)\s*$")
_FIELD = re.compile(r"^(\w+)\s+([\w.*\[\]{}]+)\s*(?:`(.*)`)?$")
_EMBEDDED = re.compile(r"^(\*?(?:\w+\.)?\w+)\s*(?:`(.*)`)?$")
_TAG = re.compile(r'(\w+):"([^"]*)"')
_IMPORT = re.compile(r'^(?:import\s+)?(?:(\w+)\s+)?"([^"]+)"$')
_GROUP = re.compile(r'^const GroupName = "([^"]*)"', re.MULTILINE)
_VERSION = re.compile(r'^var SchemeGroupVersion = .*Version: "(\w+)"', re.MULTILINE)


@dataclass
class GoField:
    """A field of a struct. `type`: as written, every name with its package's path before it."""

    name: str
    type: str
    tags: dict[str, str]
    is_embedded: bool


@dataclass
class GoType:
    """A declared type: a struct, or another name for `other`.

    is_alias      `type A = B`: not a type of its own
    is_nullable   `+protobuf.nullable`: a slice that is a message of its own in protobuf
    """

    package: str
    name: str
    fields: list[GoField] | None = None
    other: str = ""
    is_alias: bool = False
    is_nullable: bool = False


@dataclass
class GoPackage:
    """One folder of Go files. group and version: what its objects are registered as."""

    path: str
    group: str | None = None
    version: str | None = None
    types: dict[str, GoType] = field(default_factory=dict)


#: Types of the language.
PLAIN = {"string", "bool", "int32", "int64", "int", "uint8", "byte", "float64", "interface{}",
         "any", "uint64", "uint32"}  # fmt: skip


def qualified(text: str, package: str, imports: dict[str, str]) -> str:
    """A type as written with the path of its package: `[]v1.Pod` -> `[]<k8s.io/api/core/v1>Pod`."""

    def one(match: re.Match[str]) -> str:
        alias, name = match[1], match[2]
        if alias:
            return f"<{imports[alias[:-1]]}>{name}"
        return name if name in PLAIN or name == "map" else f"<{package}>{name}"

    return re.sub(r"(\w+\.)?(\b[A-Za-z]\w*\b(?:\{\})?)", one, text)


def _lines(path: Path) -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    return text.splitlines()


def _field(line: str, package: str, imports: dict[str, str], where: str) -> GoField:
    line = line[: line.rindex("`") + 1] if "`" in line else re.sub(r"\s*//.*$", "", line)
    found = _FIELD.match(line)
    if found:
        tags = dict(_TAG.findall(found[3] or ""))
        return GoField(found[1], qualified(found[2], package, imports), tags, False)
    found = _EMBEDDED.match(line)
    if not found:
        raise ValueError(f"{where}: {line!r} is not understood")
    name = found[1].rpartition(".")[2].lstrip("*")
    tags = dict(_TAG.findall(found[2] or ""))
    return GoField(name, qualified(found[1], package, imports), tags, True)


def read_file(path: Path, into: GoPackage) -> None:
    """Add the types that a file declares."""
    imports: dict[str, str] = {}
    current: GoType | None = None
    nullable = False
    for line in _lines(path):
        bare = line.strip()
        if current is not None:
            if line.startswith("}"):
                current = None
            elif current.fields is not None and bare and not bare.startswith("//"):
                where = f"{path}: {current.name}"
                current.fields.append(_field(bare, into.path, imports, where))
            continue
        if found := _IMPORT.match(bare):
            imports[found[1] or found[2].rpartition("/")[2]] = found[2]
        if bare.startswith("//"):
            nullable = nullable or "+protobuf.nullable=true" in bare
            continue
        if found := _DECLARED.match(line):
            name, alias, rest = found[1], bool(found[2]), re.sub(r"\s*//.*$", "", found[3])
            made = GoType(into.path, name, is_alias=alias, is_nullable=nullable)
            into.types[name] = made
            if rest == "struct {":
                made.fields = []
                current = made
            elif rest == "struct{}":
                made.fields = []
            elif "interface" in rest or "func" in rest or "(" in rest:
                del into.types[name]
                if rest.endswith("{"):
                    current = GoType(into.path, name)
            else:
                made.other = qualified(rest, into.path, imports)
        nullable = False


def read_package(folder: Path, path: str) -> GoPackage:
    """The types that a folder of Go files declares, and the group and version it registers."""
    package = GoPackage(path)
    for file in sorted(folder.glob("*.go")):
        if file.name.endswith("_test.go") or file.name.startswith(("zz_", "generated.")):
            continue
        text = file.read_text()
        if (found := _GROUP.search(text)) and package.group is None:
            package.group = found[1]
        if found := _VERSION.search(text):
            package.version = found[1]
        if re.search(r"^type\s", text, re.MULTILINE):
            read_file(file, package)
    return package
