"""JSON as Go's encoder writes it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

#: What Go's JSON encoder escapes in strings, and leaves nowhere else.
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028",
            "\u2029": "\\u2029"}  # fmt: skip
_ESCAPED = str.maketrans(_ESCAPES)


def json_bytes(document: Mapping[str, object], indent: int | None = None) -> bytes:
    """A document as Go encodes it, members in their order. Lone surrogates become "?"."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(document, ensure_ascii=False, separators=separators, indent=indent)
    return text.translate(_ESCAPED).encode(errors="replace")
