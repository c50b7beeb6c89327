"""A sample of the malformed requests over a socket; `python -m tests.fuzz.wire` is the whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.responses import Response

from btreecache.server.application import Application
from tests.fuzz.wire import Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire(0.1) as found:
        yield found


def test_nothing_comes_of_them_but_what_is_documented(wire: Wire) -> None:
    run = wire.run_one(0, 150)
    assert run["violations"] == []
    assert sum(run["outcomes"].values()) == 150
    assert {"200", "400", "405"} <= run["outcomes"].keys()


def test_a_wrong_status_and_an_error_in_the_log_are_found(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> Response:
        raise RuntimeError("broken")

    monkeypatch.setattr(Application, "_objects", broken)
    found = wire.run_one(1, 40)["violations"]
    assert "500" in {one["status"] for one in found}
    assert any("RuntimeError: broken" in one["status"] for one in found)
