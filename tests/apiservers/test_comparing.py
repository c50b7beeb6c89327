"""The comparison's own judges: what they find, what they leave out, and that the page is whole."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.apiservers.bodies import BUILT_IN, CUSTOM
from tests.apiservers.comparing.answers import Answer, ask, differences
from tests.apiservers.comparing.known import KNOWN, name_of
from tests.apiservers.comparing.questions import Question, Questions
from tests.apiservers.servers import EXTENSIONS, KUBE

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
LIST = Question("list", "/api/v1/pods")
WATCH = Question("watch", "/api/v1/pods", (("watch", "true"),))
JSON = {"content-type": "application/json"}


def pod(name: str, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "resourceVersion": version}, **more}


def listed(*pods: dict[str, Any], version: str = "9") -> Answer:
    body = {"kind": "PodList", "metadata": {"resourceVersion": version}, "items": [*pods]}
    return Answer(200, JSON, [body])


def watched(*events: tuple[str, dict[str, Any]]) -> Answer:
    return Answer(200, JSON, [{"type": kind, "object": thing} for kind, thing in events])


def test_every_name_has_its_row_and_every_row_its_name() -> None:
    table = PAGE.read_text().split("| difference |", 1)[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([\w.-]+) \|", table, re.MULTILINE)
    assert rows == [*dict.fromkeys(known.name for known in KNOWN)]


@pytest.mark.parametrize(
    ("question", "theirs", "ours", "found"),
    [
        (LIST, listed(pod("a"), pod("b")), listed(pod("a"), pod("b")), None),
        (LIST, listed(pod("a")), listed(pod("a", "2")),
         ".items[].metadata.resourceVersion: '1' != '2'"),
        (LIST, listed(pod("a")), listed(pod("a", more=None)), ".items[].more: absent != None"),
        (LIST, listed(pod("a"), pod("b")), listed(pod("a")), ".items: 2 items != 1"),
        (LIST, listed(pod("a"), pod("b")), listed(pod("b"), pod("a")), "order: another one"),
        (LIST, listed(version="8"), listed(), ".metadata.resourceVersion: '8' != '9'"),
        (LIST, listed(), replace(listed(), status=500), "status: 200 PodList != 500 PodList"),
        (LIST, listed(), replace(listed(), headers={}), "content-type: application/json != None"),
        (LIST, listed(), replace(listed(), bodies=listed().bodies * 2),
         "kinds: 1 PodList != 2 PodList"),
        (LIST, Answer(200, JSON, [b"k8s\0x"]), Answer(200, JSON, [b"k8s\0y"]),
         ": b'k8s\\x00x' != b'k8s\\x00y'"),
        (WATCH, watched(("ADDED", pod("a"))), watched(("ADDED", pod("a"))), None),
        (WATCH, watched(("ADDED", pod("a"))), watched(("MODIFIED", pod("a"))),
         "kinds: 1 ADDED Pod != 1 MODIFIED Pod"),
        (WATCH, watched(("ADDED", pod("a"))), watched(), "kinds: 1 ADDED Pod != nothing"),
        (WATCH, watched(("ADDED", pod("a"))), watched(("ADDED", pod("b"))),
         ".object.metadata.name: 'a' != 'b'"),
    ],
)  # fmt: skip
def test_what_is_found(question: Question, theirs: Answer, ours: Answer, found: str | None) -> None:
    assert differences(question, theirs, ours) == ([found] if found else [])
    if found:
        assert name_of(EXTENSIONS, question, found) is None, "a fault would pass as known"


def test_pages_that_are_cut_otherwise_hold_the_same() -> None:
    chain = Question("chain", "/p", (("labelSelector", "a"),), chained=True)
    cut = replace(listed(), bodies=[*listed(pod("a")).bodies, *listed().bodies])
    assert differences(chain, cut, listed(pod("a"))) == ["pages: 2 != 1"]
    assert name_of(KUBE, chain, "pages: 2 != 1") == "empty-last-page"
    lost = differences(chain, cut, listed(pod("b")))
    assert "[].metadata.name: 'a' != 'b'" in lost


def test_a_known_difference_is_so_only_where_it_may_be() -> None:
    wildcard = "status: 406 Status 406 406: Not Acceptable != 200 PodList"
    question = Question("list", "/api/v1/pods", accept="application/*")
    assert name_of(KUBE, question, wildcard) == "wildcard"
    assert name_of(KUBE, LIST, wildcard) is None
    assert name_of(KUBE, WATCH, "order: another one") == "1.20-order"
    assert name_of(EXTENSIONS, WATCH, "order: another one") is None


def test_questions_are_of_every_kind_and_the_same_from_one_seed() -> None:
    resources = (*BUILT_IN, *CUSTOM)
    made = [Questions(Random("x"), resources, ("n1",), range(5, 9)) for _ in range(2)]
    asked = [made[0].next() for _ in range(300)]
    assert asked == [made[1].next() for _ in range(300)]
    kinds = {"get", "list", "chain", "exact", "watch", "malformed", "odd path", "document"}
    assert {question.kind for question in asked} == kinds
    assert all(question.url.isascii() and " " not in question.url for question in asked)


@pytest.mark.anyio
async def test_a_chain_is_followed_with_the_tokens_of_its_own_server() -> None:
    urls = []

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        token = {"continue": "t2"} if len(urls) == 1 else {}
        return httpx.Response(200, headers=JSON, text=json.dumps({"metadata": token}))

    question = Question(
        "chain", "/p", (("limit", "2"), ("resourceVersion", "7")), None, chained=True
    )
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        found = await ask(client, question)
    assert urls == ["http://x/p?limit=2&resourceVersion=7", "http://x/p?limit=2&continue=t2"]
    assert len(found.bodies) == 2
