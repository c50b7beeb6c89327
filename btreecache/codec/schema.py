"""The facts of the Kubernetes API types: which field of which message has which number and name.

schema.txt is made from the struct tags of the API's Go types (`python -m tests.schema make`); its
header says from which packages. A section is an apiVersion (`= apps/v1`), a block after an empty
line a message, each further line of it one field in the order in which Go declares it, which is the
order of JSON:

    Deployment!                            an object, with kind and apiVersion of its own
    1 meta.k8s.io/v1.ObjectMeta metadata o
    number, type, JSON name ("" for a struct that is spread over its owner's JSON), flags

Types: string, bool, int32, int64, double, bytes; Time, MicroTime, Duration, Quantity, IntOrString,
RawExtension, FieldsV1, JSON, Strings (a message of strings that is an array in JSON); else the name
of a message, with its section if that is another one. Before it `*` for a pointer (whether it is
there is told apart from empty), `[]` for a list, `{}` for a map from strings. Flags: o omitempty,
z omitzero, i inline, r retired: servers no longer know it, so it is written only where it is set.
A name that ends in `|`: one of its fields is its whole JSON.

The text is split at once and a message read when it is asked for: loading takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    number      in protobuf
    shape       "" a value, "*" a pointer, "[]" a list, "{}" a map from strings
    type        a word for scalars and special types, else a message's name, section included
    name        in JSON; "" if inline
    omit_empty  left out of JSON when empty; a struct never is
    omit_zero   left out of JSON when it is the zero value of its type
    inline      a struct whose members stand among its owner's in JSON
    retired     only old servers know it: written only where it is set
    """

    number: int
    shape: str
    type: str
    name: str
    omit_empty: bool
    omit_zero: bool
    inline: bool
    retired: bool

    @property
    def is_message(self) -> bool:
        """Whether `type` is the name of a message of the table."""
        return "." in self.type


@dataclass(frozen=True, slots=True)
class Message:
    """A message, its fields in the order of JSON. is_union: see the module."""

    section: str
    name: str
    is_kind: bool
    is_union: bool
    fields: tuple[Field, ...]


class Schema:
    """The messages of a text, read one by one. Any thread. Raises KeyError for unknown names."""

    def __init__(self, text: str) -> None:
        header, *sections = text.split("\n= ")
        self.origin = header
        self._blocks: dict[str, dict[str, str]] = {}
        for section in sections:
            name, *blocks = section.rstrip("\n").split("\n\n")
            self._blocks[name] = {
                block[: block.find("\n") if "\n" in block else None].rstrip("!|"): block
                for block in blocks
            }

    def kind(self, api_version: str, kind: str) -> Message | None:
        """The message of an object; None if the table has none. O(its fields)."""
        block = self._blocks.get(api_version, {}).get(kind)
        if block is None and api_version == "v1":
            # Status and its like are v1 too, whatever the group of what they answer for.
            return self.kind("meta.k8s.io/v1", kind)
        if block is None or not block.startswith(kind + "!"):
            return None
        return self.message(f"{api_version}.{kind}")

    def message(self, full_name: str) -> Message:
        """A message by section and name: `apps/v1.Deployment`. O(its fields)."""
        section, _, name = full_name.rpartition(".")
        first, *rest = self._blocks[section][name].split("\n")
        fields = tuple(_field(line, section) for line in rest)
        return Message(section, name, first.endswith("!"), first.endswith("|"), fields)

    def names(self) -> Iterator[str]:
        """The full name of every message."""
        for section, blocks in self._blocks.items():
            for name in blocks:
                yield f"{section}.{name}"


#: Types that are no messages of the table.
WORDS = frozenset({
    "string", "bool", "int32", "int64", "double", "bytes", "Time", "MicroTime", "Duration",
    "Quantity", "IntOrString", "RawExtension", "FieldsV1", "JSON", "Strings",
})  # fmt: skip


def _field(line: str, section: str) -> Field:
    number, written, name, *rest = line.split(" ")
    flags = rest[0] if rest else ""
    kind = written.lstrip("*[]{}")
    shape = written[: len(written) - len(kind)]
    if kind not in WORDS and "." not in kind:
        kind = f"{section}.{kind}"
    omit_empty, omit_zero, inline, retired = (flag in flags for flag in "ozir")
    return Field(int(number), shape, kind, name, omit_empty, omit_zero, inline, retired)


@cache
def schema() -> Schema:
    """The table of this package, loaded once. A few milliseconds the first time."""
    return Schema(files("btreecache.codec").joinpath("schema.txt").read_text("utf-8"))
