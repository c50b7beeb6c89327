"""gzip over HTTP: when, what it says, that it is the same, and that what was kept is used."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from btreecache.encoding.deflate import RunKind
from btreecache.features import Features
from tests.server.world import World

PODS = "/api/v1/pods"
PROTOBUF = "application/vnd.kubernetes.protobuf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest.fixture(scope="module")
def long() -> Iterator[World]:
    """400 pods of a kilobyte in two namespaces; nobody writes."""
    with World() as world:
        for number in range(400):
            world.put_pod("ab"[number % 2], f"p{number:03}", pad=f"{number:04}" * 250)
        yield world


def raw(world: World, path: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """Headers and body as they come over the wire."""
    with world.client.stream("GET", path, headers=headers) as answer:
        return dict(answer.headers), b"".join(answer.iter_raw())


@pytest.mark.parametrize(
    "accept", ["application/json", PROTOBUF, TABLE, PARTIAL, "application/yaml"]
)
@pytest.mark.parametrize(
    "query", ["", "?limit=300", "?resourceVersion=200&resourceVersionMatch=Exact", "?pretty=1",
              "?labelSelector=!nothing"],
)  # fmt: skip
def test_a_compressed_list_is_the_list(long: World, accept: str, query: str) -> None:
    plain, body = raw(long, PODS + query, accept=accept, **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain
    headers, compressed = raw(long, PODS + query, accept=accept, **{"accept-encoding": "gzip"})
    if len(body) <= 128 << 10:
        assert "content-encoding" not in headers
        return
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "Accept-Encoding"
    assert headers["content-type"] == plain["content-type"]
    if accept == TABLE:  # ages differ
        assert len(gzip.decompress(compressed)) == pytest.approx(len(body), rel=0.01)
    else:
        assert gzip.decompress(compressed) == body
    assert len(compressed) < len(body) / 2


@pytest.mark.parametrize("accepted", ["gzip;q=1", "deflate", "*", "", "x-gzip", "identity"])
def test_what_is_not_exactly_gzip_is_not(long: World, accepted: str) -> None:
    headers, _ = raw(long, PODS, **{"accept-encoding": accepted})
    assert "content-encoding" not in headers


def test_short_answers_are_plain_and_a_long_object_is_not(long: World) -> None:
    headers, _ = raw(long, f"{PODS}?limit=10", **{"accept-encoding": "deflate, gzip"})
    assert "content-encoding" not in headers
    with World() as world:
        world.put_pod("a", "big", pad="0123456789" * 20_000)
        path = "/api/v1/namespaces/a/pods/big"
        headers, body = raw(world, path, **{"accept-encoding": "deflate, gzip"})
        assert headers["content-encoding"] == "gzip"
        assert int(headers["content-length"]) == len(body)
        assert json.loads(gzip.decompress(body))["metadata"]["name"] == "big"


def test_a_second_list_compresses_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    compute = RunKind._run

    def noted(self: RunKind, *args: object) -> object:
        made.append(args)
        return compute(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(RunKind, "_run", noted)
    with World() as world:
        for number in range(400):
            world.put_pod("a", f"p{number:03}", pad=f"{number:04}" * 250)
        counts = []
        for _ in range(3):
            made.clear()
            _, body = raw(world, PODS, **{"accept-encoding": "gzip"})
            counts.append(len(made))
            _, plain = raw(world, PODS, **{"accept-encoding": "identity"})
            assert gzip.decompress(body) == plain
            if len(counts) == 2:
                world.put_pod("a", "p200", pad="new")
        assert counts[0] > 10
        assert counts[1] == 0
        assert 1 <= counts[2] <= 4


def test_other_programs_read_it(long: World) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    curl = ["curl", "-s", "--compressed", "-A", "x", long.url + PODS]
    found = subprocess.run(curl, capture_output=True, timeout=20, check=True).stdout
    assert len(json.loads(found)["items"]) == 400
    _, compressed = raw(long, PODS, **{"accept-encoding": "gzip"})
    for command in (["gzip", "-dc"], ["gzip", "-t"]):
        done = subprocess.run(
            command, input=compressed, capture_output=True, timeout=20, check=True
        )
        assert done.stdout in (found, b"")


@pytest.mark.parametrize(
    ("accept", "gate"),
    [("application/json", "StreamingCollectionEncodingToJSON"),
     (PROTOBUF, "StreamingCollectionEncodingToProtobuf")],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_without_its_gate_a_list_is_collected_first(accept: str, gate: str, encoding: str) -> None:
    """The same bytes; that they were collected shows by their length being known."""
    with World(features=Features.parse(f"{gate}=false")) as world:
        for number in range(300):
            world.put_pod("a", f"p{number:03}", pad=f"{number:04}" * 250)
        headers, body = raw(world, PODS, accept=accept, **{"accept-encoding": encoding})
        assert int(headers["content-length"]) == len(body)
        text = gzip.decompress(body) if encoding == "gzip" else body
        assert text.count(b"p299") == 1
