"""Health pages: what they say to a load balancer and to a person, and the end that is announced."""

from __future__ import annotations

import pytest

from btreecache.server import health
from btreecache.server.refusals import UnknownPath
from tests.server.world import World

CHECKS = {"ping": "", "pods": "", "nodes": "the cache is resynchronising"}


@pytest.mark.parametrize(
    ("excluded", "verbose", "code", "text"),
    [
        ((), False, 500,
         "[+]ping ok\n[+]pods ok\n[-]nodes failed: the cache is resynchronising\n"
         "readyz check failed\n"),
        (("nodes",), False, 200, "ok"),
        (("nodes", "ping", "pods"), False, 200, "ok"),
        (("nodes",), True, 200,
         "[+]ping ok\n[+]pods ok\n[+]nodes excluded: ok\nreadyz check passed\n"),
        (("nodes", "no\n", "no\n"), True, 200,
         "[+]ping ok\n[+]pods ok\n[+]nodes excluded: ok\n"
         'warn: some health checks cannot be excluded: no matches for "no\\n"\n'
         "readyz check passed\n"),
        (("",), False, 500,
         "[+]ping ok\n[+]pods ok\n[-]nodes failed: the cache is resynchronising\n"
         'warn: some health checks cannot be excluded: no matches for ""\nreadyz check failed\n'),
    ],
)  # fmt: skip
def test_all_checks(excluded: tuple[str, ...], verbose: bool, code: int, text: str) -> None:
    answer = health.overall("readyz", CHECKS, excluded=excluded, verbose=verbose)
    assert (answer.status_code, bytes(answer.body).decode()) == (code, text)


def test_one_check() -> None:
    assert health.single(CHECKS, "pods").body == b"ok"
    failed = health.single(CHECKS, "nodes")
    assert failed.status_code == 500
    assert failed.body == b"internal server error: the cache is resynchronising\n"
    with pytest.raises(UnknownPath):
        health.single(CHECKS, "shutdown")


def test_each_cache_has_a_check_and_the_end_is_announced() -> None:
    made = World(at_start=("pods", "deployments.apps"))
    assert made.caches.readiness() == dict.fromkeys(
        ("pods", "deployments.apps"), "the cache has not been filled yet"
    )
    with made as world:
        for page in ("readyz", "healthz"):
            for name in ("ping", "pods", "deployments.apps"):
                world.wait_for(lambda p=page, n=name: world.get(f"/{p}/{n}").text == "ok")  # type: ignore[misc]
        assert world.get("/livez/ping").text == "ok"
        for path in ("/livez/pods", "/readyz/nodes", "/readyz/pods/x", "/readyz/"):
            wanted = 200 if path == "/readyz/" else 404
            assert world.get(path).status_code == wanted
        assert world.client.head("/readyz/pods").status_code == 200
        assert world.client.post("/readyz/pods").status_code == 405
        world.caches.leave()
        assert world.get("/readyz").text == (
            "[+]ping ok\n[-]shutdown failed: process is shutting down\n[+]pods ok\n"
            "[+]deployments.apps ok\nreadyz check failed\n"
        )
        assert world.get("/readyz?exclude=shutdown").text == "ok"
        assert world.get("/livez").text == "ok"
        assert world.get("/api/v1/pods").status_code == 200


def test_a_list_under_way_is_finished_at_the_end() -> None:
    """The caches are stopped, and its snapshot is still there."""
    with World() as world:
        for number in range(40):
            world.put_pod("a", f"x{number:02}", filler="f" * 200_000)
        world.names("/api/v1/pods?limit=1")
        plain = {"Accept-Encoding": "identity"}
        with world.client.stream("GET", "/api/v1/pods", headers=plain) as answer:
            chunks = answer.iter_bytes()
            size = len(next(chunks))
            world.caches.stop()
            assert world.get("/api/v1/pods").status_code == 429
            size += sum(map(len, chunks))
        assert size == int(answer.headers["content-length"]) > 40 * 200_000
