"""Text for people: pretty JSON, and YAML. Streamed.

Pretty JSON is as Go indents it, two spaces a level. White space is all that changes: names stay in
their order, numbers as they are written. So it works on the chunks of whatever was going to be
sent, wherever they were cut, and keeps no more than a token that isn't complete.

YAML is as people know it from kubectl: names sorted, two spaces a level. The subset that is written
is read alike by YAML 1.1 and 1.2: a string is written plain only if no reader could take it for
anything else, else in quotes, with lines of its own where it has some. So nothing is needed to
write it, and every reader gets back the JSON value. No anchors, no comments, no line folding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from btreecache.codec.base import Unreadable
from btreecache.element import Element
from btreecache.encoding.body import Body, joined
from btreecache.encoding.form import Form
from btreecache.plan import PageMeta

#: A string, one that isn't complete, a mark, or a word (number, true, false, null).
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|(".*)|[][{},:]|[^][{},:"\s]+', re.DOTALL)


def pretty_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The JSON text that `chunks` make, indented, without a newline at its end. O(text), lazy.

    What is no JSON comes out as something that is none.
    """
    return joined(_pretty(chunks))


def pretty(text: bytes) -> bytes:
    """The same for a text."""
    return b"".join(_pretty([text]))


def _pretty(chunks: Iterable[bytes]) -> Iterator[bytes]:
    line = [b"\n"]
    depth, is_open, rest = 0, False, b""
    for chunk in _with_end(chunks):
        text = rest + chunk if chunk is not None else rest
        out: list[bytes] = []
        rest = b""
        for found in _TOKEN.finditer(text):
            token = found.group()
            if chunk is not None and (found.group(1) or found.end() == len(text)):
                # The next chunk may go on with it. A mark is complete, but can wait as well.
                rest = token
                break
            if token in b"}]":
                depth = max(0, depth - 1)
                out.append(token if is_open else line[depth] + token)
                is_open = False
                continue
            if is_open:
                out.append(line[depth])
                is_open = False
            if token in b"{[":
                depth += 1
                if depth == len(line):
                    line.append(line[-1] + b"  ")
                is_open = True
            elif token == b",":
                token = b"," + line[depth]
            elif token == b":":
                token = b": "
            out.append(token)
        yield b"".join(out)


def _with_end(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from chunks
    yield None


# YAML.


class _Number(str):
    """A number as it is written in JSON."""

    __slots__ = ()


_decode = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number).decode

#: A string that may be written without quotes, unless it is one of those below.
_PLAIN = re.compile(
    r"[A-Za-z0-9_/.$(](?:[A-Za-z0-9_/.$()+^~;@%=*?<>!|&,-]|:(?=[A-Za-z0-9_/])"
    r"| (?=[A-Za-z0-9_/.$(]))*",
    re.ASCII,
)

#: What a reader of some version of YAML takes for a number, a date or the like. Generous: quotes do
#: no harm.
_AMBIGUOUS = re.compile(
    r"[-+.]?[-+._:,0-9a-fox ]*[0-9][-+._:,0-9a-fox tz]*|[-+]?\.inf|\.nan|[-~.+]+|--.*|\.\.\.",
    re.ASCII | re.IGNORECASE,
)
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null", "~", "="))

#: What is escaped in quotes beside what JSON escapes, and keeps a text from being a block.
_SPECIAL = re.compile("[\x7f-\xa0\xad\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")

#: A name longer than this needs the long form (YAML 1.2, 7.4: 1024 at most, quotes included).
_NAME_MAX = 400


def yaml(text: bytes) -> bytes:
    """A JSON text as YAML, with a newline at its end. O(text). Raises Unreadable."""
    return "".join(_document(text, "")).encode(errors="replace")


def yaml_list(form: Form, elements: Sequence[Element], meta: PageMeta) -> Body:
    """A page of a list, item by item. Raises NotAcceptable."""
    return Body(joined(_list(form, elements, meta)))


def _list(form: Form, elements: Sequence[Element], meta: PageMeta) -> Iterator[bytes]:
    yield b"apiVersion: %b\nitems:%b" % (
        _scalar(form.api_version, "").encode(), b"\n" if elements else b" []\n",
    )  # fmt: skip
    for element in elements:
        yield "".join(_document(form.item(element), "- ")).encode(errors="replace")
    rest = {"kind": form.list_kind, "metadata": json.loads(json.dumps(form.list_metadata(meta)))}
    if meta.remaining_item_count is not None:
        rest["metadata"]["remainingItemCount"] = _Number(meta.remaining_item_count)
    yield "".join(_block(rest, "", "")).encode()


def _document(text: bytes, first: str) -> Iterator[str]:
    """The lines of a JSON text; `first` stands before the first one."""
    try:
        value = _decode(text.decode())
        yield from [*_block(value, " " * len(first), first)]
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"can't be written as YAML: {error}") from error


def _block(value: Any, indent: str, first: str) -> Iterator[str]:
    """The lines of a value. `first` stands in front of it, `indent` in front of its other lines."""
    if isinstance(value, dict) and value:
        for name in sorted(value):
            yield from _member(name, value[name], indent, first)
            first = indent
    elif isinstance(value, list) and value:
        for one in value:
            yield from _block(one, indent + "  ", first + "- ")
            first = indent
    else:
        yield f"{first}{_scalar(value, indent)}\n"


def _member(name: str, value: Any, indent: str, first: str) -> Iterator[str]:
    shown = _quoted(name) if "\n" in name else _scalar(name, "")
    if len(name) > _NAME_MAX:
        shown = f"? {shown}\n{indent}"
    if not isinstance(value, dict | list) or not value:
        yield f"{first}{shown}: {_scalar(value, indent)}\n"
        return
    yield f"{first}{shown}:\n"
    # Sequences stand at their name's level, as kubectl writes them.
    inner = indent if isinstance(value, list) else indent + "  "
    yield from _block(value, inner, inner)


def _scalar(value: Any, indent: str) -> str:
    match value:
        case _Number():
            return _number(value)
        case str():
            return _string(value, indent)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _:
            return "{}" if isinstance(value, dict) else "[]"


def _number(text: str) -> str:
    """As every reader takes it for a number: an exponent wants a point and a sign (YAML 1.1)."""
    mantissa, letter, exponent = text.lower().partition("e")
    if not letter:
        return str(text)
    point = "" if "." in mantissa else ".0"
    sign = "" if exponent[:1] in ("+", "-") else "+"
    return f"{mantissa}{point}e{sign}{exponent}"


def _string(text: str, indent: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not _AMBIGUOUS.fullmatch(text):
        return text
    return _lines(text, indent) if _has_lines(text) else _quoted(text)


def _has_lines(text: str) -> bool:
    """Whether a string can be written as a block of lines."""
    if "\n" not in text or text.startswith((" ", "\n")):
        return False
    return not _SPECIAL.search(text) and not _CONTROL.search(text)


def _lines(text: str, indent: str) -> str:
    """A text of several lines as a block of them."""
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    chomp = "-" if ends == 0 else "" if ends == 1 else "+"
    inner = indent + "  "
    lines = [inner + line if line else "" for line in body.split("\n")]
    return "\n".join([f"|{chomp}", *lines, *[""] * max(0, ends - 1)])


def _quoted(text: str) -> str:
    return _SPECIAL.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    # Half of a pair is no character; Go has replaced it, too.
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"
