"""What may come of a request: an answer that is the truth, or a refusal that is documented.

A refusal has a 4xx status, or is a 504 for a revision ahead, and makes a whole Status object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from btreecache.element import Element
from btreecache.errors import TOO_LARGE, BtreecacheError, FutureRevision, NotFound, status
from btreecache.reads import Answer, ListPage
from btreecache.server.refusals import UnknownPath
from tests.fuzz import naive
from tests.fuzz.world import Pod, Pods, World

#: Documented refusals of a read, and what their Status says.
REASONS = {400: "BadRequest", 404: "NotFound", 410: "Expired", 422: "Invalid",
           429: "TooManyRequests", 504: "Timeout"}  # fmt: skip

#: A message may be so many times as long as what was asked, and this long besides.
MESSAGE_FACTOR, MESSAGE_CHARS = 40, 40_000


class Violation(AssertionError):
    """An outcome that nobody was promised."""


def require(holds: object, why: str) -> None:
    if not holds:
        raise Violation(why)


class Meaning(NamedTuple):
    """What was asked, as plainly as it can be said; `known` False: nobody can say what it selects.

    exact, least   the revision that an answer is of, or that it is not older than
    number         the revision that was named, 0: none
    limit          None: all; also where one key is asked for
    """

    prefix: bytes
    one: bool = False
    exact: int | None = None
    least: int = 0
    number: int = 0
    start: bytes = b""
    limit: int | None = None
    labels: naive.Matcher | None = None
    fields: naive.Matcher | None = None
    filtered: bool = False

    @property
    def known(self) -> bool:
        return not self.filtered or (self.labels is not None and self.fields is not None)

    def takes(self, key: bytes, pod: Pod) -> bool:
        """Whether it is meant; where nobody can say, it may be."""
        return (
            (key == self.prefix if self.one else key.startswith(self.prefix))
            and key >= self.start
            and (self.labels is None or self.labels(pod.labels))
            and (self.fields is None or self.fields(pod.fields))
        )

    def of(self, pods: Pods) -> Pods:
        """Those that are meant."""
        return {key: pod for key, pod in pods.items() if self.takes(key, pod)}


class Before(NamedTuple):
    """How things were when a request came."""

    current: int
    reached: int
    ready: bool

    @classmethod
    def of(cls, world: World) -> Before:
        return cls(world.current, world.cache.revision, world.cache.ready)


def judge_page(page: ListPage, meaning: Meaning, world: World) -> None:
    """The answer to a list."""
    revision = int(page.meta.resource_version)
    require(1 <= revision <= world.current, f"answer at {revision}, which is not yet")
    if meaning.exact is not None:
        require(revision == meaning.exact, f"answer at {revision}, asked at {meaning.exact}")
    require(revision >= meaning.least, f"answer at {revision}, older than {meaning.least}")
    wanted = meaning.of(world.at(revision))
    found = [element.key for element in page.elements]
    for element in page.elements:
        same(element, wanted, revision)
    require(all(map(bytes.__lt__, found, found[1:])), "keys out of order")
    if not meaning.known:
        return
    shown = [*wanted] if meaning.limit is None else [*wanted][: meaning.limit]
    require(found == shown, f"found {found}, at {revision} there are {shown}")
    left = len(wanted) - len(shown)
    token, remaining = page.meta.continue_token, page.meta.remaining_item_count
    require(remaining == (None if meaning.filtered else left or None), f"{remaining} are said left")
    require(token or not left, "more are left, and no token")
    if token:
        require(left or meaning.filtered, "a token, and nothing left")
        rest = found[-1][len(meaning.prefix) :] + b"\0"
        require(naive.token(token) == (rest, revision), f"token {token} after {found[-1]!r}")


def judge_answer(answer: Answer, meaning: Meaning, world: World) -> None:
    """The answer to a get."""
    revision = int(answer.resource_version)
    require(1 <= revision <= world.current, f"answer at {revision}, which is not yet")
    if meaning.exact is not None:
        require(revision == meaning.exact, f"answer at {revision}, asked at {meaning.exact}")
    require(revision >= meaning.least, f"answer at {revision}, older than {meaning.least}")
    require(answer.element.key == meaning.prefix, f"another key: {answer.element.key!r}")
    same(answer.element, world.at(revision), revision)


def same(element: Element, pods: Pods, revision: int) -> None:
    pod = pods.get(element.key)
    if pod is None:
        raise Violation(f"{element.key!r} is not of the answer at {revision}")
    equal = (element.source_value(), element.mod_revision) == (pod.value, pod.revision)
    require(equal, f"{element.key!r} is another at {revision}")


def judge_status(error: BtreecacheError, asked_chars: int) -> None:
    """The Status object of a refusal, whole and sendable."""
    said = status(error)
    try:
        text = json.dumps(said, ensure_ascii=False).encode()
    except (TypeError, ValueError) as wrong:
        raise Violation(f"a Status that can't be sent: {wrong}: {said!r:.300}") from None
    code, message, details = said["code"], said["message"], said.get("details", {})
    require(code == error.status and code in REASONS, f"status {code}: {message!s:.300}")
    require(said["reason"] == REASONS[error.status], f"{code} with reason {said['reason']}")
    require((said["kind"], said["apiVersion"], said["status"]) == ("Status", "v1", "Failure"),
            "not a Status of a failure")  # fmt: skip
    require(isinstance(message, str) and message, f"{code} without a message")
    limit = MESSAGE_FACTOR * asked_chars + MESSAGE_CHARS
    require(len(text) <= limit, f"{len(text)} bytes said about {asked_chars} asked")
    assert isinstance(details, Mapping)
    causes, retry = details.get("causes", []), details.get("retryAfterSeconds", 0)
    if code == 422:
        whole = all(cause["field"] and cause["message"] and cause["reason"] for cause in causes)
        require(causes and whole, "422 that doesn't say which field")
    if code == 429:
        require(retry, "429 that doesn't say when to come again")
    if code == 504:
        require(causes == [TOO_LARGE], "504 without its cause")


def judge_refusal(error: Exception, meaning: Meaning, before: Before, world: World) -> None:
    """Whether there was a reason for it."""
    match error:
        case FutureRevision():
            require(error.revision > error.current, f"not ahead: {error}")
            named = meaning.number
            require(not named or named > before.reached, f"{named} was there: {error}")
        case UnknownPath():
            pass
        case NotFound():
            require(meaning.one, "404 for a collection")
            least = max(meaning.least, 1)
            exact = meaning.exact
            at = range(least, world.current + 1) if exact is None else [exact]
            missing = any(meaning.prefix not in world.at(revision) for revision in at)
            require(missing, f"404 for {meaning.prefix!r}, which is there")
        case BtreecacheError(status=410):
            exact = meaning.exact
            require(
                exact is not None and exact < world.compacted, f"410 for {exact}, which is kept"
            )
        case BtreecacheError(status=429):
            require(not (before.ready and world.cache.ready), f"429 from a ready cache: {error}")
