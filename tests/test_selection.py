"""What narrows a list never changes it: every small set of objects, every selector, every token.

The oracle reads every object of the list and asks the predicate alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import pytest

from btreecache import Cache, Element, SourceError
from btreecache.codec import Kubernetes
from btreecache.continue_token import encode
from btreecache.index import field_index, label_index
from btreecache.options import ListOptions
from btreecache.reader import Reader
from btreecache.resources import BUILT_IN, Resource
from btreecache.selection import Keys, select

PREFIX = b"/registry/pods/"
CODEC = Kubernetes()
INDEXES = (label_index("app"), field_index("metadata.name", 0))
KEYS = ["a/x", "a/y", "b/x", "odd", "a/b/c", "/x"]
KINDS = ["own", "x in a", "x in a/b", "unreadable"]
SELECTORS = [
    "metadata.name=x", "metadata.name=x,metadata.namespace=a", "metadata.namespace=a",
    "metadata.name!=x", "metadata.namespace=", "metadata.name=", "metadata.namespace=a/b",
    "metadata.name=b/c",
]  # fmt: skip
PREFIXES = ["", "a/", "a/b/"]
STARTS = ["", "a/x\0", "b"]


def resource(name: str) -> Resource:
    found = BUILT_IN.named(name)
    assert found is not None
    return found


def element(name: str, kind: str) -> Element:
    key = PREFIX + name.encode()
    if kind == "unreadable":
        return Element(key, b"", 1, 1, 1, problem="rotten")
    namespace, _, own = name.rpartition("/")
    if kind != "own":
        own, _, namespace = kind.partition(" in ")
    return Element(key, b"", 1, 1, 1, ("app", own), (own, namespace))


def sets() -> Iterator[list[Element]]:
    """One object of every kind at every key, alone and beside a plain or a rotten one."""
    for name, kind in product(KEYS, KINDS):
        yield [element(name, kind)]
    for (name, other), kind, beside in product(
        permutations(KEYS, 2), KINDS[1:], ("own", "unreadable")
    ):
        if beside == "own" or name < other:
            pair = [element(name, kind), element(other, beside)]
            yield sorted(pair, key=lambda one: one.key)


@pytest.mark.parametrize(("name", "label"), [("pods", ""), ("pods", "app=x"), ("nodes", "")])
def test_narrowing_never_changes_a_list(name: str, label: str) -> None:
    of = resource(name)
    keys = Keys(PREFIX, of, CODEC.fields)
    asked = [ListOptions(field_selector=text, label_selector=label) for text in SELECTORS]
    predicates = [
        select(options, options.validate, CODEC.fields, keys, None).matches for options in asked
    ]
    narrowed = 0
    for elements in sets():
        cache = Cache(PREFIX, indexes=INDEXES)
        cache.replace(5, elements)
        reader = Reader(cache, codec=CODEC, resource=of)
        for (options, matches), part, start in product(
            zip(asked, predicates, strict=True), PREFIXES, STARTS
        ):
            prefix, first = PREFIX + part.encode(), (PREFIX + start.encode()) if start else b""
            if start and not first.startswith(prefix):
                continue
            token = encode(first, prefix, 5) if start else ""
            listed = [e for e in elements if e.key.startswith(prefix) and e.key >= first]
            wanted = [e for e in listed if matches(e)]
            given = ListOptions(
                field_selector=options.field_selector,
                label_selector=label,
                continue_token=token,
                resource_version="" if token else "0",
            )
            if any(e.problem for e in wanted):
                with pytest.raises(SourceError, match="rotten"):
                    reader.list(given, prefix)
            else:
                assert reader.list(given, prefix).elements == wanted, (given, prefix, elements)
                narrowed += len(wanted) < len(listed)
    assert narrowed > 100, "there was something to leave out"


@pytest.mark.parametrize(
    ("name", "part", "selector", "wanted"),
    [
        ("pods", "", "metadata.name=x", ("", False)),
        ("pods", "", "metadata.namespace=a", ("a/", False)),
        ("pods", "", "metadata.namespace=a,metadata.name=x", ("a/x", True)),
        ("pods", "a/", "metadata.name=x", ("a/x", True)),
        ("pods", "a/", "metadata.namespace=b,metadata.name=x", ("a/x", True)),
        ("pods", "a", "metadata.name=x", ("a", False)),
        ("pods", "a/b/", "metadata.name=x", ("a/b/", False)),
        ("pods", "", "metadata.name!=x,metadata.namespace!=a", ("", False)),
        ("nodes", "", "metadata.name=x", ("x", True)),
        ("nodes", "a/", "metadata.name=x", ("a/", False)),
    ],
)
def test_the_least_range(name: str, part: str, selector: str, wanted: tuple[str, bool]) -> None:
    keys = Keys(PREFIX, resource(name), CODEC.fields)
    options = ListOptions(field_selector=selector)
    selection = select(options, options.validate, CODEC.fields, keys, None)
    found, is_key = keys.narrowed(PREFIX + part.encode(), selection)
    assert (found[len(PREFIX) :].decode(), is_key) == wanted


@pytest.mark.parametrize(
    ("name", "key", "wanted"),
    [
        ("pods", b"a/x", ("a", "x")),
        ("pods", b"x", None),
        ("pods", b"a/b/x", None),
        ("pods", b"/x", None),
        ("pods", b"a/", None),
        ("pods", b"a/\xff", None),
        ("nodes", b"x", ("", "x")),
        ("nodes", b"a/x", None),
        ("nodes", b"", None),
    ],
)
def test_who_lies_at_a_key(name: str, key: bytes, wanted: tuple[str, str] | None) -> None:
    assert Keys(PREFIX, resource(name), CODEC.fields).identity(PREFIX + key) == wanted


def test_requirements_are_what_is_pinned() -> None:
    keys = Keys(PREFIX, None, ())
    options = ListOptions(
        label_selector="app=x,b in (y),c in (y,z),d!=w,e,app!=z",
        field_selector="spec.nodeName=n,status.phase!=Running,metadata.name=",
    )
    assert set(select(options, options.validate, (), keys, None).requirements) == {
        ("l:app", "x"), ("l:b", "y"), ("f:spec.nodeName", "n"), ("f:metadata.name", ""),
    }  # fmt: skip


def test_a_selector_of_many_terms_is_read_once() -> None:
    """Found by the fuzzer (seed 595): the terms were looked through anew for each of them."""
    text = ",".join(f"k{at}!=v" for at in range(20_000)) + ",app=web,app=db"
    options = ListOptions(label_selector=text, field_selector="spec.nodeName=n,metadata.name!=x")
    keys = Keys(PREFIX, None, CODEC.fields)
    selection = select(options, options.validate, CODEC.fields, keys, None)
    assert selection.requirements == (("l:app", "web"), ("f:spec.nodeName", "n"))
