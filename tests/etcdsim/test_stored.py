"""Objects as the simulator stores them: what an API server's own bytes would be.

The judge is the transcoder, which shares no code and no table with the simulator.
"""

from __future__ import annotations

import json

import pytest

from btreecache.codec.transcode import json_of, protobuf_of
from etcdsim import objects
from etcdsim.prng import Prng
from etcdsim.simulator import Simulator
from etcdsim.stored import Template

PRNG = Prng(5)
MARKS = {
    "created": "2026-01-02T03:04:05Z", "heartbeat": "2026-01-02T03:04:06Z",
    "changed": "2026-01-02T03:04:07Z", "renewed": "2026-01-02T03:04:05.070000Z",
    "is_ready": "true", "restarts": "300", "serial": "7",
}  # fmt: skip
TEMPLATES = {
    "lease": objects.lease_template(),
    "node": objects.node_template(PRNG),
    "pod": objects.pod_template(PRNG, "app", "owner", "hash"),
    "configmap": objects.config_map_template(),
    "secret": objects.secret_template(),
    "event": objects.event_template("Pulled", "for $pod$ on $node$", "kubelet"),
}


class Fields(dict[bytes, bytes]):
    """Marks, and for all others their own names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__({name.encode(): MARKS.get(name, f"<{name}>").encode() for name in names})


EARLY = Fields(["name", "uid", "node_uid", "created", "address", "data", "node", "pod", "pod_uid"])
LATE = Fields(["namespace", "container", "pod_revision", *MARKS, "phase", "ready"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_bytes_are_those_of_an_api_server(name: str) -> None:
    value = TEMPLATES[name].fill(EARLY) % LATE
    assert protobuf_of(json_of(value)) == value
    assert value == TEMPLATES[name] % {**EARLY, **LATE}, "in one step or in two"


def test_marks_become_what_their_fields_hold() -> None:
    pod = json.loads(json_of(TEMPLATES["pod"].fill(EARLY) % LATE))
    status = pod["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["ready"]) == (300, True)
    assert pod["metadata"]["creationTimestamp"] == MARKS["created"]
    assert pod["status"]["conditions"][1]["lastTransitionTime"] == MARKS["changed"]
    lease = json.loads(json_of(TEMPLATES["lease"].fill(EARLY) % LATE))
    assert lease["spec"]["renewTime"] == MARKS["renewed"]
    event = json.loads(json_of(TEMPLATES["event"].fill(EARLY) % LATE))
    assert event["message"] == "for <pod> on <node>"


def test_a_mark_that_is_left_is_no_object() -> None:
    template: Template = TEMPLATES["pod"]
    with pytest.raises(KeyError):
        template % EARLY


def test_all_that_a_cluster_writes() -> None:
    simulator = Simulator("kubernetes", seed=4, objects=300)
    simulator.load()
    for _ in range(1000):
        simulator.step()
    for kv in simulator.model.scan(b"/", b"0"):
        if kv.value.startswith(b"k8s\0"):
            text = json_of(kv.value)
            assert protobuf_of(text) == kv.value
            assert json.loads(text)["metadata"]["name"] == kv.key.decode().split("/")[-1]
        else:
            assert json.loads(kv.value)["kind"] == "Backup"
