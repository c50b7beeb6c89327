"""From Go types to the table: what is a message, which kinds there are, what each field is.

The wire type in a struct tag is not to be trusted (`bytes` before a float64): upstream's generator
goes by the Go type, and so does this. `check_proto` then holds the result against the .proto files
that upstream generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.schema.go_types import GoField, GoPackage, GoType, read_package

META = "k8s.io/apimachinery/pkg/apis/meta/v1"
EXTENSIONS = "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/"

#: Types whose JSON is written by code of their own, by package and name -> word of the table.
SPECIAL = {
    (META, "Time"): "Time",
    (META, "MicroTime"): "MicroTime",
    (META, "Duration"): "Duration",
    (META, "FieldsV1"): "FieldsV1",
    ("k8s.io/apimachinery/pkg/api/resource", "Quantity"): "Quantity",
    ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString"): "IntOrString",
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension"): "RawExtension",
    (EXTENSIONS + "v1", "JSON"): "JSON",
    (EXTENSIONS + "v1beta1", "JSON"): "JSON",
}

#: Structs whose JSON is one of their fields: the way is in codec/transcode.
UNIONS = {"JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray"}

SCALARS = {"string": "string", "bool": "bool", "int32": "int32", "int64": "int64",
           "float64": "double"}  # fmt: skip

_NAME = re.compile(r"<([^>]+)>(\w+)")


@dataclass
class Field:
    """One fact. `type`: `*`, `[]`, `{}` (map from string) before a word or a message's name."""

    number: int
    type: str
    json: str
    flags: str
    wire: str


@dataclass
class Message:
    """A message: `section.name`. is_kind: an object, with kind and apiVersion of its own."""

    section: str
    name: str
    package: str
    is_kind: bool
    fields: list[Field] = field(default_factory=list)


class Types:
    """Every declared type of some trees of Go packages, newest first; the newest of a type counts.

    older: what the other trees say of the same type
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self.packages: dict[str, GoPackage] = {}
        self.older: dict[tuple[str, str], list[GoType]] = {}
        for root in roots:
            for path, folder in _folders(root):
                found = read_package(folder, path)
                known = self.packages.setdefault(path, found)
                for name, declared in found.types.items():
                    if known.types.setdefault(name, declared) is not declared:
                        self.older.setdefault((path, name), []).append(declared)

    def resolve(self, path: str, name: str) -> GoType:
        """A type with aliases followed."""
        found = self.packages[path].types[name]
        match = _NAME.fullmatch(found.other)
        if found.is_alias and match:
            return self.resolve(match[1], match[2])
        return found

    def struct(self, declared: GoType) -> GoType | None:
        """The struct behind a type; None if there is none."""
        while declared.fields is None:
            match = _NAME.fullmatch(declared.other)
            known = match and match[1] in self.packages
            if not match or not known or (match[1], match[2]) in SPECIAL:
                return None
            declared = self.resolve(match[1], match[2])
        return declared


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(root.glob("**/*.go")):
        folder = file.parent
        path = "k8s.io/" + str(folder.relative_to(root))
        wanted = (
            path.startswith("k8s.io/api/")
            or path in {EXTENSIONS + "v1", EXTENSIONS + "v1beta1"}
            or path.startswith("k8s.io/kube-aggregator/pkg/apis/apiregistration/v1")
            or path in {META, "k8s.io/apimachinery/pkg/types"}
        )
        if wanted and file == min(folder.glob("*.go")) and "/testdata" not in path:
            yield path, folder


class Table:
    """The messages that kinds lead to, by section and name. kinds: `apps/v1.Deployment`; all."""

    def __init__(self, types: Types, kinds: Iterable[str] = ()) -> None:
        wanted = frozenset(kinds)
        self.types = types
        self.messages: dict[tuple[str, str], Message] = {}
        for package in types.packages.values():
            if package.group is None or package.version is None:
                continue
            for name, declared in package.types.items():
                if wanted and f"{self.section(package.path)}.{name}" not in wanted:
                    continue
                struct = types.struct(declared)
                if struct is not None and not declared.is_alias and self._is_kind(struct):
                    self.message(package.path, name)

    def _is_kind(self, struct: GoType) -> bool:
        return any(
            one.is_embedded and one.type == f"<{META}>TypeMeta" and "protobuf" not in one.tags
            for one in struct.fields or ()
        )

    def section(self, path: str) -> str:
        """The apiVersion of a package's objects."""
        package = self.types.packages[path]
        return f"{package.group}/{package.version}" if package.group else str(package.version)

    def message(self, path: str, name: str) -> Message:
        """The message of a struct, and of all that it leads to."""
        declared = self.types.resolve(path, name)
        key = self.section(declared.package), declared.name
        if key in self.messages:
            return self.messages[key]
        struct = self.types.struct(declared)
        if struct is None or struct.fields is None:
            raise ValueError(f"{path}.{name} is no struct")
        made = Message(key[0], key[1], declared.package, self._is_kind(struct))
        self.messages[key] = made
        self._add_fields(made, struct, "")
        for older in self.types.older.get((declared.package, declared.name), ()):
            if older.fields is not None:
                self._add_fields(made, older, "r")
        names = [one.json for one in made.fields if one.json != "-"]
        if len(set(names)) < len(names):
            raise ValueError(f"{path}.{name}: a JSON name is there twice")
        return made

    def _add_fields(self, made: Message, struct: GoType, flag: str) -> None:
        """Add the fields with new numbers, each behind the one that stands before it in Go."""
        numbers = [one.number for one in made.fields]
        at = 0
        for one in struct.fields or ():
            tag = one.tags.get("protobuf", "-")
            if tag == "-":
                continue
            number = int(tag.split(",")[1])
            if number in numbers:
                at = numbers.index(number) + 1
                continue
            found = self._field(made, one, tag)
            found.flags += flag
            made.fields.insert(at, found)
            numbers.insert(at, number)
            at += 1

    def _field(self, owner: Message, one: GoField, tag: str) -> Field:
        where = f"{owner.section}.{owner.name}.{one.name}"
        number = int(tag.split(",")[1])
        wire = re.search(r"name=(\w+)", tag)
        json, *options = one.tags.get("json", one.name).split(",")
        if unknown := set(options) - {"omitempty", "omitzero", "inline"}:
            raise ValueError(f"{where}: JSON option {unknown}")
        flags = ("o" if "omitempty" in options else "") + ("z" if "omitzero" in options else "")
        if json == "":
            if not one.is_embedded or one.type.startswith("*"):
                raise ValueError(f"{where}: no JSON name, and no struct to spread")
            flags += "i"
        name = wire[1] if wire else one.name[0].lower() + one.name[1:]
        return Field(number, self._type(one.type, owner, where), json, flags, name)

    def _type(self, text: str, owner: Message, where: str) -> str:
        if text == "[]byte":
            return "bytes"
        for prefix, word in (("*", "*"), ("[]", "[]")):
            if text.startswith(prefix):
                inner = self._type(text[len(prefix) :], owner, where)
                if inner[0] in "*[{":
                    raise ValueError(f"{where}: {text}")
                return word + inner
        if text.startswith("map["):
            name, value = text[4:].split("]", 1)
            if self._type(name, owner, where) != "string":
                raise ValueError(f"{where}: {text}")
            inner = self._type(value, owner, where)
            if inner[0] in "*[{":
                raise ValueError(f"{where}: {text}")
            return "{}" + inner
        if text in SCALARS:
            return SCALARS[text]
        match = _NAME.fullmatch(text)
        if not match:
            raise ValueError(f"{where}: {text}")
        if (match[1], match[2]) in SPECIAL:
            return SPECIAL[match[1], match[2]]
        declared = self.types.resolve(match[1], match[2])
        if (declared.package, declared.name) in SPECIAL:
            return SPECIAL[declared.package, declared.name]
        if self.types.struct(declared) is None:
            if declared.is_nullable:
                if declared.other != "[]string":
                    raise ValueError(f"{where}: nullable {declared.other}")
                return "Strings"
            return self._type(declared.other, owner, where)
        made = self.message(declared.package, declared.name)
        return made.name if made.section == owner.section else f"{made.section}.{made.name}"

    def text(self, origin: str) -> str:
        """The table as it is kept."""
        parts = [origin.rstrip("\n")]
        section = None
        for key in sorted(self.messages):
            message = self.messages[key]
            if message.section != section:
                section = message.section
                parts.append(f"\n= {section}")
            mark = "!" if message.is_kind else "|" if message.name in UNIONS else ""
            lines = [message.name + mark]
            for one in message.fields:
                lines.append(f"{one.number} {one.type} {one.json} {one.flags}".rstrip())
            parts.append("\n" + "\n".join(lines))
        return "\n".join(parts) + "\n"


_PROTO_MESSAGE = re.compile(r"^message (\w+) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_PROTO_FIELD = re.compile(
    r"^  (?:(optional|repeated|required) )?(map<string, ?)?\.?([\w./]+)>? (\w+) = (\d+);",
    re.MULTILINE,
)


def check_proto(table: Table, root: Path) -> tuple[int, list[str]]:
    """Compare with the .proto files under a tree: how many fields agree, and what does not."""
    agree, wrong = 0, []
    for message in table.messages.values():
        file = root / message.package.removeprefix("k8s.io/") / "generated.proto"
        found = dict(_PROTO_MESSAGE.findall(file.read_text())) if file.exists() else {}
        if message.name not in found:
            continue
        told = {}
        for label, is_map, kind, name, number in _PROTO_FIELD.findall(found[message.name]):
            told[int(number)] = (
                "{}" if is_map else "[]" if label == "repeated" else "",
                kind.rpartition(".")[2],
                name,
            )
        ours = {}
        for one in message.fields:
            shape = one.type[:2] if one.type[:2] in ("[]", "{}") else ""
            base = one.type.lstrip("*[]{}").rpartition(".")[2]
            ours[one.number] = shape, base, one.wire
        for number in sorted(told.keys() | ours.keys()):
            a, b = told.get(number), ours.get(number)
            if a and b and b[1] == "Strings":
                b = b[0], a[1], b[2]
            if a == b:
                agree += 1
            else:
                wrong.append(f"{message.section}.{message.name} {number}: .proto {a}, tags {b}")
    return agree, wrong
