"""Columns and cells: against a real API server's, and by hand for every rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from btreecache.encoding.columns import COLUMNS, columns_of, human_duration
from btreecache.encoding.columns.words import seconds_at
from btreecache.resources import BUILT_IN, Resource
from tests.encoding.table_samples import (
    A_MINUTE_AGO,
    ASKED,
    BORN,
    CELLS,
    FIVE_MINUTES_AGO,
    NOW,
    TABLES,
    TEXTS,
    an,
    asked_for,
    resource,
)

#: Columns that servers after 1.20 have and it had not: 1.29 and later.
LATER = {
    "jobs": {"Status": "Running"},
    "persistentvolumes": {"VolumeAttributesClass": "<unset>"},
}


@pytest.mark.parametrize("answer", TABLES, ids=lambda one: one["path"])
def test_as_a_real_server(answer: dict[str, Any]) -> None:
    table = json.loads(answer["body"])
    of = asked_for(answer["path"])
    columns, later = columns_of(of), LATER.get(of.plural, {})
    ours = [
        (one.name, one.type, one.format, one.priority)
        for one in columns.columns
        if one.name not in later
    ]
    theirs = [
        (one["name"], one["type"], one["format"], one["priority"])
        for one in table["columnDefinitions"]
    ]
    if of.plural == "pods":
        # A string since 1.22, as the last restart is said with it.
        assert theirs[3] == ("Restarts", "integer", "", 0)
        theirs[3] = ("Restarts", "string", "", 0)
    assert ours == theirs
    names = [one.name for one in columns.columns]
    compared = 0
    for row in table["rows"]:
        text = TEXTS.get(row["object"]["metadata"]["uid"])
        if text is None:
            continue
        compared += 1
        stored = json.loads(text)
        assert stored["metadata"] == row["object"]["metadata"]
        cells = dict(zip(names, columns.cells(stored, ASKED), strict=True))
        assert {name: cells.pop(name) for name in later} == later
        if of.plural == "pods":
            assert cells["Restarts"].split()[0] == str(row["cells"][3])
            cells["Restarts"] = row["cells"][3]
        assert list(cells.values()) == row["cells"]
    # The server's own event was not recorded; see the cases below.
    assert compared == {"events": 0, "namespaces": 3, "pods": 2, "services": 2}.get(of.plural, 1)


def case_id(value: object) -> str | None:
    return value if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "one", "cells"), CELLS, ids=case_id)
def test_cells(name: str, one: dict[str, Any], cells: list[Any]) -> None:
    columns = columns_of(resource(name))
    assert columns.cells(one, NOW) == cells
    assert len(cells) == len(columns.columns)
    read = {member: one[member] for member in ("metadata", *columns.reads) if member in one}
    assert columns.cells(read, NOW) == cells, "`reads` leaves out a member that cells need"


def test_every_column_set_has_a_case() -> None:
    covered = {(resource(name).group, resource(name).plural) for name, _, _ in CELLS}
    missing = set(COLUMNS) - covered - {("rbac.authorization.k8s.io", "clusterrolebindings")}
    assert missing == {("rbac.authorization.k8s.io", "roles")}


def test_columns_are_of_resources_that_there_are() -> None:
    assert set(COLUMNS) <= {(one.group, one.plural) for one in BUILT_IN.all}


def test_every_table_names_its_objects() -> None:
    for one in BUILT_IN.all:
        columns = columns_of(one).columns
        assert [column.name for column in columns if column.format == "name"] == ["Name"]
        assert len({column.name for column in columns}) == len(columns)
        assert all(column.description for column in columns)


# The state of a pod, rule by rule.


def container(state: str, name: str = "c", **more: Any) -> dict[str, Any]:
    """A container's status, from `running`, `waiting:Reason` or `terminated:Reason:code:signal`."""
    what, *rest = state.split(":")
    inner: dict[str, Any] = {}
    if what == "waiting":
        inner = {"reason": rest[0]} if rest else {}
    elif what == "terminated":
        reason, code, signal = (*rest, "", "", "")[:3]
        inner = {"exitCode": int(code or 0)} | ({"reason": reason} if reason else {})
        inner |= {"signal": int(signal)} if signal else {}
    status: dict[str, Any] = {"name": name, "state": {what: inner} if what else {}}
    return status | {"ready": what == "running"} | more


def pod(
    *containers: dict[str, Any],
    init: list[dict[str, Any]] | None = None,
    sidecars: tuple[str, ...] = (),
    deleted: bool = False,
    conditions: str = "",
    **status: Any,
) -> dict[str, Any]:
    """`conditions`: Type=Status or Type=Status:Reason, with blanks between."""
    said = []
    for condition in conditions.split():
        kind, _, value = condition.partition("=")
        value, _, reason = value.partition(":")
        said.append({"type": kind, "status": value, "reason": reason})
    started = init or []
    return an(
        "p",
        metadata={"deletionTimestamp": BORN} if deleted else {},
        spec={
            "containers": [{"name": one["name"]} for one in containers],
            "initContainers": [
                {"name": one["name"]}
                | ({"restartPolicy": "Always"} if one["name"] in sidecars else {})
                for one in started
            ],
        },
        status={
            "phase": "Running",
            "conditions": said,
            "containerStatuses": list(containers),
            "initContainerStatuses": started,
        }
        | status,
    )


RUNNING = container("running")
DONE = container("terminated:Completed:0", "i")

#: what is tested, pod, READY, STATUS, RESTARTS
PODS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("phase alone", pod(phase="Pending"), "0/0", "Pending", "0"),
    ("the pod's reason goes before its phase", pod(phase="Failed", reason="Evicted"), "0/0",
     "Evicted", "0"),
    ("running", pod(RUNNING), "1/1", "Running", "0"),
    ("running but not ready", pod(container("running", ready=False)), "0/1", "Running", "0"),
    ("ready is not enough", pod(container("", ready=True)), "0/1", "Running", "0"),
    ("gated", pod(phase="Pending", conditions="PodScheduled=False:SchedulingGated"), "0/0",
     "SchedulingGated", "0"),
    ("another reason of PodScheduled says nothing",
     pod(phase="Pending", conditions="PodScheduled=False:Unschedulable"), "0/0", "Pending", "0"),
    ("waiting", pod(container("waiting:CrashLoopBackOff")), "0/1", "CrashLoopBackOff", "0"),
    ("waiting without a reason", pod(container("waiting")), "0/1", "Running", "0"),
    ("the first container has the last word",
     pod(container("waiting:A"), container("waiting:B")), "0/2", "A", "0"),
    ("a container with nothing to say leaves it to the next",
     pod(RUNNING, container("waiting:B")), "1/2", "B", "0"),
    ("terminated, reason", pod(container("terminated:Error:1")), "0/1", "Error", "0"),
    ("terminated, signal", pod(container("terminated::137:9")), "0/1", "Signal:9", "0"),
    ("terminated, exit code", pod(container("terminated::3")), "0/1", "ExitCode:3", "0"),
    ("terminated, nothing", pod(container("terminated")), "0/1", "ExitCode:0", "0"),
    ("completed", pod(container("terminated:Completed:0"), phase="Succeeded"), "0/1", "Completed",
     "0"),
    ("one completed, one running, ready",
     pod(container("terminated:Completed:0"), RUNNING, conditions="Ready=True"), "1/2", "Running",
     "0"),
    ("one completed, one running, not ready",
     pod(container("terminated:Completed:0"), RUNNING, conditions="Ready=False"), "1/2",
     "NotReady", "0"),
    ("a reason Completed with nothing running stays",
     pod(container("terminated:Completed:0"), container("running", ready=False)), "0/2",
     "Completed", "0"),
    ("init: the first of two at work",
     pod(RUNNING, init=[container("running", "i"), container("waiting:PodInitializing", "j")]),
     "0/1", "Init:0/2", "0"),
    ("init: the second of two at work",
     pod(RUNNING, init=[DONE, container("waiting:PodInitializing", "j")]), "0/1", "Init:1/2", "0"),
    ("init: waiting for a reason", pod(RUNNING, init=[container("waiting:ErrImagePull", "i")]),
     "0/1", "Init:ErrImagePull", "0"),
    ("init: waiting without a reason", pod(RUNNING, init=[container("waiting", "i")]), "0/1",
     "Init:0/1", "0"),
    ("init: failed, reason", pod(RUNNING, init=[container("terminated:Error:1", "i")]), "0/1",
     "Init:Error", "0"),
    ("init: failed, signal", pod(RUNNING, init=[container("terminated::137:9", "i")]), "0/1",
     "Init:Signal:9", "0"),
    ("init: failed, exit code", pod(RUNNING, init=[container("terminated::2", "i")]), "0/1",
     "Init:ExitCode:2", "0"),
    ("init: done", pod(RUNNING, init=[DONE, DONE]), "1/1", "Running", "0"),
    ("init: the condition goes before what a container says",
     pod(RUNNING, init=[container("terminated:Error:1", "i")], conditions="Initialized=True"),
     "1/1", "Init:Error", "0"),
    ("init: and then the containers are heard",
     pod(container("waiting:A"), init=[container("terminated:Error:1", "i")],
         conditions="Initialized=True"), "0/1", "A", "0"),
    ("init: only the first condition of a type counts",
     pod(RUNNING, init=[container("waiting", "i")],
         conditions="Initialized=False Initialized=True"), "0/1", "Init:0/1", "0"),
    ("init: restarts are those of init containers up to the one at work",
     pod(container("waiting:A", restartCount=5),
         init=[container("terminated:Completed:0", "i", restartCount=2),
               container("running", "j", restartCount=1),
               container("waiting", "k", restartCount=8)]), "0/1", "Init:1/3", "3"),
    ("restarts of finished init containers don't count",
     pod(container("running", restartCount=5), init=[DONE | {"restartCount": 3}]), "1/1",
     "Running", "5"),
    ("sidecar: ready", pod(RUNNING, init=[container("running", "s", started=True)],
                           sidecars=("s",)), "2/2", "Running", "0"),
    ("sidecar: started, not ready",
     pod(RUNNING, init=[container("running", "s", started=True, ready=False)], sidecars=("s",)),
     "1/2", "Running", "0"),
    ("sidecar: not started", pod(RUNNING, init=[container("running", "s", started=False)],
                                 sidecars=("s",)), "0/2", "Init:0/1", "0"),
    ("sidecar: failed before it was started",
     pod(RUNNING, init=[container("terminated:Error:1", "s")], sidecars=("s",)), "0/2",
     "Init:Error", "0"),
    ("sidecar: has ended well, and is not ready any more",
     pod(RUNNING, init=[container("terminated:Completed:0", "s", started=True, ready=True)],
         sidecars=("s",)), "1/2", "Running", "0"),
    ("sidecar: its restarts count",
     pod(container("running", restartCount=1),
         init=[container("running", "s", started=True, restartCount=2), DONE | {"restartCount": 4}],
         sidecars=("s",)), "2/2", "Running", "3"),
    ("started is nothing to an ordinary init container",
     pod(RUNNING, init=[container("running", "i", started=True)]), "0/1", "Init:0/1", "0"),
    ("deleted", pod(RUNNING, deleted=True), "1/1", "Terminating", "0"),
    ("deleted, ended", pod(container("terminated:Completed:0"), deleted=True, phase="Succeeded"),
     "0/1", "Completed", "0"),
    ("deleted, failed", pod(deleted=True, phase="Failed", reason="Evicted"), "0/0", "Evicted",
     "0"),
    ("deleted, node lost", pod(RUNNING, deleted=True, reason="NodeLost"), "1/1", "Unknown", "0"),
    ("node lost, not deleted", pod(RUNNING, reason="NodeLost"), "1/1", "NodeLost", "0"),
    ("restarts, and when last",
     pod(container("running", restartCount=2,
                   lastState={"terminated": {"finishedAt": FIVE_MINUTES_AGO}}),
         container("running", "d", restartCount=1,
                   lastState={"terminated": {"finishedAt": A_MINUTE_AGO}})), "2/2", "Running",
     "3 (60s ago)"),
    ("a restart that isn't counted yet has no time",
     pod(container("running", lastState={"terminated": {"finishedAt": A_MINUTE_AGO}})), "1/1",
     "Running", "0"),
    ("restarts without a time",
     pod(container("running", restartCount=2, lastState={"terminated": {"finishedAt": None}})),
     "1/1", "Running", "2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "ready", "status", "restarts"), [case[1:] for case in PODS], ids=[c[0] for c in PODS]
)
def test_the_state_of_a_pod(one: dict[str, Any], ready: str, status: str, restarts: str) -> None:
    cells = columns_of(resource("pods")).cells(one, NOW)
    assert cells[1:4] == [ready, status, restarts]


@pytest.mark.parametrize(
    ("conditions", "deleted", "status"),
    [
        ("Complete=True Failed=True", True, "Complete"),
        ("Complete=False Failed=True", True, "Failed"),
        ("Suspended=True", True, "Terminating"),
        ("Suspended=True FailureTarget=True", False, "Suspended"),
        ("FailureTarget=True", False, "FailureTarget"),
        ("SuccessCriteriaMet=True", False, "Running"),
    ],
)
def test_the_status_of_a_job(conditions: str, deleted: bool, status: str) -> None:
    one = pod(conditions=conditions, deleted=deleted)
    assert columns_of(resource("jobs")).cells(one, NOW)[1] == status


M, H, D = 60, 3600, 86_400
Y = 365 * D


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-2, "<invalid>"), (-1.999, "0s"), (-1, "0s"), (0, "0s"), (0.999, "0s"), (1, "1s"),
        (119, "119s"), (119.999, "119s"), (2 * M, "2m"), (2 * M + 1, "2m1s"),
        (10 * M - 1, "9m59s"), (10 * M, "10m"), (10 * M + 59, "10m"), (3 * H - 1, "179m"),
        (3 * H, "3h"), (3 * H + M, "3h1m"), (8 * H - 1, "7h59m"), (8 * H, "8h"),
        (2 * D - 1, "47h"), (2 * D, "2d"), (2 * D + H, "2d1h"), (8 * D - 1, "7d23h"),
        (8 * D, "8d"), (2 * Y - 1, "729d"), (2 * Y, "2y"), (2 * Y + D, "2y1d"),
        (8 * Y - 1, "7y364d"), (8 * Y, "8y"), (292 * Y, "292y"),
        # What Go's int64 of nanoseconds can't hold.
        (1000 * Y, "292y"), (1e30, "292y"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert human_duration(seconds) == said


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.5Z", 0.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:01", None),
        ("0001-01-01T00:00:00+23:00", -62_135_679_600.0),
        ("now", None),
        ("", None),
        ("\ud800", None),
        (None, None),
        (0, None),
    ],
)
def test_times(time: object, seconds: float | None) -> None:
    assert seconds_at({"t": time}, "t") == seconds


def test_an_age_that_is_not_known() -> None:
    for metadata in ({}, {"creationTimestamp": None}, {"creationTimestamp": "soon"}):
        cells = columns_of(resource("controllerrevisions")).cells({"metadata": metadata}, NOW)
        assert cells == ["", "<unknown>"]


def test_a_custom_resource_has_a_name_and_an_age() -> None:
    widget = Resource("example.com", "widgets", "Widget", True, ("v1",), "example.com/widgets")
    assert [one.name for one in columns_of(widget).columns] == ["Name", "Age"]
    assert columns_of(widget).cells(an("w"), NOW) == ["w", "10m"]
