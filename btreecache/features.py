"""Feature gates: name, stage, default, and what each one changes.

The names are those of Kubernetes, so that a comparison with an API server is one flag. A gate is
here only if the code honours it, and switched off it restores the older behaviour. `Features`
is an immutable value that is passed as an argument; there are no global gates.
"""

from __future__ import annotations

from dataclasses import dataclass

from btreecache.errors import BadRequest, quoted


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate.

    stage      as upstream: ALPHA, BETA or GA. Ours can all be switched off, GA too.
    on, off    what happens with it and without it, a sentence each
    """

    name: str
    field: str
    stage: str
    default: bool
    on: str
    off: str

    def __str__(self) -> str:
        default = str(self.default).lower()
        return f"{self.name}=true|false ({self.stage} - default={default})"


GATES = (
    Gate(
        "ConsistentListFromCache",
        "consistent_list_from_cache",
        "GA",
        True,
        "Reads of the newest state come from the cache once it has reached the source's revision.",
        "Reads of the newest state, and of revisions not reached yet, go to the source.",
    ),
    Gate(
        "ListFromCacheSnapshot",
        "list_from_cache_snapshot",
        "BETA",
        True,
        "Exact reads and continued pages come from the retained snapshots.",
        "Exact reads and continued pages go to the source.",
    ),
    Gate(
        "StreamingCollectionEncodingToJSON",
        "streaming_json",
        "GA",
        True,
        "The first byte of a list in JSON leaves before the last one is made.",
        "The same bytes are collected before the first one leaves: memory grows with the list.",
    ),
    Gate(
        "StreamingCollectionEncodingToProtobuf",
        "streaming_protobuf",
        "GA",
        True,
        "The first byte of a list in Protobuf leaves before the last one is made.",
        "The same bytes are collected before the first one leaves: memory grows with the list.",
    ),
    Gate(
        "WatchList",
        "watch_list",
        "BETA",
        True,
        "A watch may ask for the state first, with a bookmark that ends it (sendInitialEvents).",
        "sendInitialEvents is refused; a watch from nowhere or 0 begins with the state all the"
        " same, whatever its age, and no bookmark ends it.",
    ),
)

#: What Go's strconv.ParseBool takes, which is what the flag is parsed with upstream.
_BOOLS = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "false", "FALSE", "False"), False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Which gates are on. The defaults are those of GATES."""

    consistent_list_from_cache: bool = True
    list_from_cache_snapshot: bool = True
    streaming_json: bool = True
    streaming_protobuf: bool = True
    watch_list: bool = True

    @classmethod
    def parse(cls, text: str) -> Features:
        """The value of `--feature-gates`: `A=true,B=false`; the last word on a gate counts.

        Raises BadRequest with the words that Kubernetes uses.
        """
        asked = {}
        for part in text.split(","):
            if not part:
                continue
            name, equals, value = part.partition("=")
            name, value = name.strip(), value.strip()
            if not equals:
                raise BadRequest(f"missing bool value for {name}")
            if value not in _BOOLS:
                reason = f"strconv.ParseBool: parsing {quoted(value)}: invalid syntax"
                raise BadRequest(f"invalid value of {name}={value}, err: {reason}")
            asked[name] = _BOOLS[value]
        fields = {gate.name: gate.field for gate in GATES}
        for name in asked:
            if name not in fields:
                raise BadRequest(f"unrecognized feature gate: {name}")
        return cls(**{fields[name]: value for name, value in asked.items()})

    def enabled(self, name: str) -> bool:
        """Whether the gate of that name is on; KeyError for a name that isn't in GATES."""
        field = {gate.name: gate.field for gate in GATES}[name]
        return bool(getattr(self, field))

    def __str__(self) -> str:
        """What `parse` takes, every gate named."""
        return ",".join(f"{gate.name}={str(self.enabled(gate.name)).lower()}" for gate in GATES)
