"""ListOptions, WatchOptions, GetOptions: what a client asks for, parsed and validated.

The words are those of the Kubernetes API: query parameters by their names, and for whatever can't
be combined the status and the text that an API server answers. Selectors stay text here: what they
mean is another room's. Options are immutable values; nothing here knows a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from btreecache.errors import BadRequest, FieldError, Invalid, quoted
from btreecache.features import Features

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
UINT64_MAX = 2**64 - 1

#: Query parameters: names and values. A mapping to lists is what `urllib.parse.parse_qs` makes,
#: pairs are what `parse_qsl` makes; both need `keep_blank_values=True` to see `limit=`.
Query = Mapping[str, str | Sequence[str]] | Iterable[tuple[str, str]]

_MATCH = "resourceVersionMatch"
_INITIAL = "sendInitialEvents"
_CONTINUE_AND_MATCH = f"{_MATCH} is forbidden when continue is provided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """How to list.

    resource_version        "": the newest state; "0": any; a decimal number: see the match
    resource_version_match  "Exact": the state at that revision; "NotOlderThan": at it or later; "":
                            exact where there is a limit, else not older
    limit                   elements on a page; 0 or less: all
    continue_token          of the page before
    label_selector,
    field_selector          as in the API, unparsed
    timeout_s               how long a wait for a revision may take; None: the plan's default
    send_initial_events     never allowed here; kept to be refused in the right words
    """

    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""
    label_selector: str = ""
    field_selector: str = ""
    timeout_s: float | None = None
    send_initial_events: bool | None = None

    @classmethod
    def from_query(cls, query: Query) -> ListOptions:
        """The options in the parameters of a URL; unknown ones are ignored. Raises BadRequest."""
        first = _firsts(query)
        timeout_s = _timeout(first)  # first, as upstream: two bad numbers make one error
        return cls(
            resource_version=first.get("resourceVersion", ""),
            resource_version_match=first.get(_MATCH, ""),
            limit=_integer(first.get("limit", "0")),
            continue_token=first.get("continue", ""),
            label_selector=first.get("labelSelector", ""),
            field_selector=first.get("fieldSelector", ""),
            timeout_s=timeout_s,
            send_initial_events=_flag(first.get(_INITIAL)),
        )

    @property
    def filtered(self) -> bool:
        """Whether a selector may leave elements out."""
        return bool(self.label_selector or self.field_selector)

    def errors(self) -> tuple[FieldError, ...]:
        """Everything that can't be combined, in the order in which an API server says it."""
        errors = []
        if self.resource_version_match:
            if not self.resource_version:
                detail = f"{_MATCH} is forbidden unless resourceVersion is provided"
                errors.append(FieldError.forbidden(_MATCH, detail))
            if self.continue_token:
                errors.append(FieldError.forbidden(_MATCH, _CONTINUE_AND_MATCH))
            errors += _match_errors(self.resource_version, self.resource_version_match)
        if self.send_initial_events is not None:
            detail = f"{_INITIAL} is forbidden for list"
            errors.append(FieldError.forbidden(_INITIAL, detail))
        return tuple(errors)

    def validate(self) -> None:
        """Raises Invalid with all `errors`, if there are any."""
        if errors := self.errors():
            raise Invalid(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How to watch.

    resource_version        "": the newest state; "0": any; N: after that revision
    resource_version_match  "NotOlderThan", and only with `send_initial_events`
    send_initial_events     True: the state first, at least as new as `resource_version`, then the
                            changes; False: the changes only; None: see `defaulted`
    allow_watch_bookmarks   send bookmarks; the one that ends initial events needs it too
    timeout_s               after which the watch ends; None: when the server or the reader ends it
    continue_token          means nothing to a watch; kept because some combinations are refused
    label_selector,
    field_selector          as in the API, unparsed
    """

    resource_version: str = ""
    resource_version_match: str = ""
    continue_token: str = ""
    label_selector: str = ""
    field_selector: str = ""
    timeout_s: float | None = None
    allow_watch_bookmarks: bool = False
    send_initial_events: bool | None = None

    @classmethod
    def from_query(cls, query: Query) -> WatchOptions:
        """The options in the parameters of a URL; unknown ones are ignored. Raises BadRequest."""
        first = _firsts(query)
        timeout_s = _timeout(first)
        _integer(first.get("limit", "0"))  # parsed, and otherwise ignored, as upstream
        return cls(
            resource_version=first.get("resourceVersion", ""),
            resource_version_match=first.get(_MATCH, ""),
            continue_token=first.get("continue", ""),
            label_selector=first.get("labelSelector", ""),
            field_selector=first.get("fieldSelector", ""),
            timeout_s=timeout_s,
            allow_watch_bookmarks=bool(_flag(first.get("allowWatchBookmarks"))),
            send_initial_events=_flag(first.get(_INITIAL)),
        )

    @property
    def filtered(self) -> bool:
        """Whether a selector may leave elements out."""
        return bool(self.label_selector or self.field_selector)

    def defaulted(self, features: Features) -> WatchOptions:
        """What an API server makes of them before it validates: with the WatchList gate a watch
        from nowhere or "0" asks for initial events unless it says otherwise."""
        unsaid = self.send_initial_events is None and not self.resource_version_match
        if features.watch_list and unsaid and self.resource_version in ("", "0"):
            return replace(self, send_initial_events=True, resource_version_match=NOT_OLDER_THAN)
        return self

    def errors(self, features: Features) -> tuple[FieldError, ...]:
        """Everything that can't be combined, in the order in which an API server says it."""
        errors = []
        match = self.resource_version_match
        if self.send_initial_events is not None:
            if match != NOT_OLDER_THAN:
                detail = f"{_INITIAL} requires setting {_MATCH} to {NOT_OLDER_THAN}"
                errors.append(FieldError.forbidden(_MATCH, detail))
            if not features.watch_list:
                gate = "unless the WatchList feature gate is enabled"
                detail = f"{_INITIAL} is forbidden for watch {gate}"
                errors.append(FieldError.forbidden(_INITIAL, detail))
        if match:
            if self.send_initial_events is None:
                detail = f"{_MATCH} is forbidden for watch unless {_INITIAL} is provided"
                errors.append(FieldError.forbidden(_MATCH, detail))
            if match != NOT_OLDER_THAN:
                errors.append(FieldError.unsupported(_MATCH, match, (NOT_OLDER_THAN,)))
            if self.continue_token:
                errors.append(FieldError.forbidden(_MATCH, _CONTINUE_AND_MATCH))
        return tuple(errors)

    def validate(self, features: Features) -> None:
        """Raises Invalid with all `errors`, if there are any."""
        if errors := self.errors(features):
            raise Invalid(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOptions:
    """How to get one object.

    resource_version        "": the newest state; "0": any; N: at least as new, or with "Exact":
                            at that revision
    resource_version_match  as in a list; an API server has only "NotOlderThan" here
    timeout_s               how long a wait for a revision may take; None: the plan's default
    """

    resource_version: str = ""
    resource_version_match: str = ""
    timeout_s: float | None = None

    @classmethod
    def from_query(cls, query: Query) -> GetOptions:
        """The options in the parameters of a URL; unknown ones are ignored. Raises BadRequest."""
        first = _firsts(query)
        return cls(
            resource_version=first.get("resourceVersion", ""),
            resource_version_match=first.get(_MATCH, ""),
            timeout_s=_timeout(first),
        )

    def errors(self) -> tuple[FieldError, ...]:
        """Everything that can't be combined, in the words that a list has for it."""
        if not self.resource_version_match:
            return ()
        errors = []
        if not self.resource_version:
            detail = f"{_MATCH} is forbidden unless resourceVersion is provided"
            errors.append(FieldError.forbidden(_MATCH, detail))
        errors += _match_errors(self.resource_version, self.resource_version_match)
        return tuple(errors)

    def validate(self) -> None:
        """Raises Invalid with all `errors`, if there are any."""
        if errors := self.errors():
            raise Invalid(errors, kind="GetOptions")


def wants_watch(query: Query) -> bool:
    """Whether the parameters of a collection's URL ask for a watch."""
    return bool(_flag(_firsts(query).get("watch")))


def parse_resource_version(text: str) -> int:
    """The revision; "" and "0" are 0. Raises BadRequest unless it is a number of 64 bits."""
    if not text:
        return 0
    reason = "invalid syntax"
    if re.fullmatch(r"[0-9]+", text):
        # The length first: Python refuses to convert digits by the thousand.
        revision = int(digits) if len(digits := text.lstrip("0") or "0") <= 20 else UINT64_MAX + 1
        if revision <= UINT64_MAX:
            return revision
        reason = "value out of range"
    detail = f"strconv.ParseUint: parsing {quoted(text)}: {reason}"
    error = FieldError.invalid("resourceVersion", text, detail)
    raise BadRequest(f"invalid resource version: {error}")


def _match_errors(resource_version: str, match: str) -> list[FieldError]:
    """What is wrong with a match that was given, whatever else was."""
    if match not in (EXACT, NOT_OLDER_THAN):
        return [FieldError.unsupported(_MATCH, match, (EXACT, NOT_OLDER_THAN, ""))]
    if match == EXACT and set(resource_version) == {"0"}:
        detail = f'{_MATCH} "exact" is forbidden for resourceVersion "0"'
        return [FieldError.forbidden(_MATCH, detail)]
    return []


def _firsts(query: Query) -> dict[str, str]:
    """The first value of each parameter: the others don't count. Names are case-sensitive."""
    firsts: dict[str, str] = {}
    pairs = query.items() if isinstance(query, Mapping) else query
    for name, value in pairs:
        if isinstance(value, str):
            firsts.setdefault(name, value)
        elif value:
            firsts.setdefault(name, value[0])
    return firsts


def _flag(text: str | None) -> bool | None:
    """None if absent. Everything but "0" and "false" is true, the empty string too."""
    return None if text is None else text != "0" and text.casefold() != "false"


def _integer(text: str) -> int:
    """As Go's strconv.ParseInt with 64 bits. Raises BadRequest."""
    reason = "invalid syntax"
    if re.fullmatch(r"[+-]?[0-9]+", text):
        digits = text.lstrip("+-").lstrip("0") or "0"
        number = int(digits) if len(digits) <= 19 else INT64_MAX + 2
        number = -number if text.startswith("-") else number
        if INT64_MIN <= number <= INT64_MAX:
            return number
        reason = "value out of range"
    raise BadRequest(f"strconv.ParseInt: parsing {quoted(text)}: {reason}")


def _timeout(first: dict[str, str]) -> float | None:
    """`timeoutSeconds`: 0 is as if unsaid, less is over at once."""
    seconds = _integer(first.get("timeoutSeconds", "0"))
    return float(max(seconds, 0)) if seconds else None
