"""What the selectors of a list mean for elements, and what keys say about the objects under them.

Selectors never change what an answer is, only how it is found: by a declared index, or by key where
names are pinned and it is proved, by a count kept with the nodes, that no object of the range is
stored under another name than its own (I12).

Objects that the codec can't read. Nobody knows what they hold, so nobody can say that a label
selector leaves them out: they match whatever their key doesn't rule out. A GET of one, and a list
whose page has to contain one, fail with 500 and name the key, as upstream (TransformationFailure):
a list that silently left it out would tell every controller that it was deleted. Everything else
goes on: other keys, other namespaces, names that are pinned, the other pages of a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from btreecache.element import Element
from btreecache.errors import NotFound, SourceError, quoted
from btreecache.fields import ResourceFields
from btreecache.index import Requirement
from btreecache.options import ListOptions, WatchOptions
from btreecache.resources import Resource
from btreecache.selectors import FieldSelector, LabelSelector
from btreecache.snapshot import Snapshot, prefix_end
from btreecache.tree import Aggregate

#: Unreadable objects that an error names.
NAMED_MAX = 10

NAME, NAMESPACE = "metadata.name", "metadata.namespace"


def _count_unreadable(_: bytes, element: Element) -> int:
    return element.problem is not None


def _add(left: int, right: int) -> int:
    return left + right


#: How many elements of a range the codec couldn't read. Kept with nodes: O(what changed).
UNREADABLE: Aggregate[bytes, Element, int] = Aggregate("unreadable", 0, _count_unreadable, _add)


def any_in(
    snapshot: Snapshot, kind: Aggregate[bytes, Element, int], start: bytes, stop: bytes | None
) -> bool:
    """Whether a range counts any. O(1) where the whole snapshot has none, which is the rule."""
    tree = snapshot.tree
    return bool(tree.aggregate(kind) and tree.aggregate(kind, start, stop))


@dataclass(frozen=True, slots=True)
class Selection:
    """What the selectors of a list mean for elements.

    requirements   what every selected element certainly has, for declared indexes
    name,
    namespace      those that every selected object certainly has, None: any
    """

    labels: LabelSelector
    fields: FieldSelector
    matches: Callable[[Element], bool]

    @property
    def empty(self) -> bool:
        return self.labels.empty and self.fields.empty

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        # One pass: a selector may have a hundred thousand requirements.
        pinned: dict[str, str] = {}
        for one in self.labels.requirements:
            if one.operator in ("=", "==", "in") and len(one.values) == 1:
                pinned.setdefault(f"l:{one.key}", one.values[0])
        for field in self.fields.requirements:
            if field.operator == "=":
                pinned.setdefault(f"f:{field.name}", field.value)
        return tuple(pinned.items())

    @property
    def name(self) -> str | None:
        return self.fields.name

    @property
    def namespace(self) -> str | None:
        return self.fields.namespace


#: No selectors.
EVERYTHING = Selection(LabelSelector(), FieldSelector(), lambda _: True)


class Keys:
    """What the keys of a cache say about the objects under them, as Kubernetes lays them out.

    `resource` None: nothing. `names`: the codec's fields, which say what the objects themselves do.
    """

    def __init__(self, prefix: bytes, resource: Resource | None, names: Sequence[str]) -> None:
        self.prefix = prefix
        self._resource = resource
        known = NAME in names and NAMESPACE in names
        self._places = (names.index(NAMESPACE), names.index(NAME)) if known else None
        self._misfiled = Aggregate("misfiled", 0, self._is_misfiled, _add)

    def identity(self, key: bytes) -> tuple[str, str] | None:
        """Namespace and name of the object at `key`; None: the key isn't of that form."""
        if self._resource is None:
            return None
        try:
            parts = key[len(self.prefix) :].decode().split("/")
        except UnicodeDecodeError:
            return None
        if not all(parts) or len(parts) != 1 + self._resource.namespaced:
            return None
        return (parts[0] if self._resource.namespaced else ""), parts[-1]

    def _is_misfiled(self, key: bytes, element: Element) -> int:
        identity = self.identity(key)
        if identity is None or self._places is None:
            return 1
        namespace, name = self._places
        fields = element.fields
        # What can't be read is what its key says it is.
        return element.problem is None and identity != (fields[namespace], fields[name])

    def are_names(self, snapshot: Snapshot, prefix: bytes) -> bool:
        """Whether every object with the prefix is stored under its own name. O(what changed)."""
        return not any_in(snapshot, self._misfiled, prefix, prefix_end(prefix))

    def narrowed(self, prefix: bytes, selection: Selection) -> tuple[bytes, bool]:
        """The least range that holds all of a list that its keys can hold: a prefix, or one key.

        True if it is one key. Right only where `are_names`.
        """
        resource, namespace, name = self._resource, selection.namespace, selection.name
        if resource is None or not prefix.startswith(self.prefix):
            return prefix, False
        within = prefix[len(self.prefix) :]
        if resource.namespaced and not within and namespace is not None:
            prefix += namespace.encode() + b"/"
            within = namespace.encode() + b"/"
        if resource.namespaced:
            known = within.endswith(b"/") and within.count(b"/") == 1
        else:
            known = not within
        return (prefix + name.encode(), True) if known and name is not None else (prefix, False)

    def not_found(self, key: bytes) -> NotFound:
        resource = self._resource
        if resource is None:
            return NotFound("key", key.decode(errors="backslashreplace"))
        name = key.rpartition(b"/")[2].decode(errors="backslashreplace")
        return NotFound(resource.plural, name, resource.group)


def select(
    options: ListOptions | WatchOptions,
    validate: Callable[[], None],
    names: Sequence[str],
    keys: Keys,
    fields: ResourceFields | None,
) -> Selection:
    """What the selectors of a list or watch mean. Raises BadRequest, and Invalid as `validate`.

    `validate`: the options' own, called where an API server does; `names`: what stands in
    `Element.fields`; `fields`: which may be asked for, None: any.
    """
    if not options.filtered:
        validate()
        return EVERYTHING
    labels = LabelSelector.parse(options.label_selector)
    asked = FieldSelector.parse(options.field_selector)
    validate()  # after the grammar, before the fields' names
    if fields is not None:
        asked = asked.transform(fields.convert)
    bound, may_be_at = asked.bind(names), _by_key(asked, keys)

    def matches(element: Element) -> bool:
        if element.problem is not None:
            return may_be_at(element.key)
        return labels.matches_pairs(element.labels) and bound(element.fields)

    return Selection(labels, asked, matches)


def _by_key(fields: FieldSelector, keys: Keys) -> Callable[[bytes], bool]:
    """Whether the object at a key may be selected, as far as the key tells."""
    told = [one for one in fields.requirements if one.name in (NAMESPACE, NAME)]
    match = FieldSelector(tuple(told)).bind((NAMESPACE, NAME))

    def may_be_at(key: bytes) -> bool:
        identity = keys.identity(key)
        return identity is None or match(identity)

    return may_be_at


def check_readable(elements: Iterable[Element]) -> None:
    """Raises SourceError that names the elements which the codec couldn't read."""
    bad = [element for element in elements if element.problem is not None]
    if not bad:
        return
    said = [
        f"unable to read the object at key {quoted(one.key.decode(errors='surrogateescape'))}:"
        f" {one.problem}"
        for one in bad[:NAMED_MAX]
    ]
    if len(bad) > NAMED_MAX:
        said.append(f"and {len(bad) - NAMED_MAX} more")
    raise SourceError("; ".join(said))
