"""How fast objects are transcoded, and how fast others do what comes nearest, in one run.

CPU time, the ways in turn, and the best round of each: what else the machine does shows less then.

    json_of, protobuf_of    ours
    msgspec, stdlib json    the JSON parsed and written again: what one pays who has JSON already,
                            and decodes it
    upb                     the protobuf runtime with the same descriptors: parse alone, and with
                            json_format.MessageToJson, whose JSON is proto3's and not Kubernetes'
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from time import process_time

import msgspec
from google.protobuf.json_format import MessageToJson

from btreecache.codec.schema import schema
from btreecache.codec.transcode import Transcoder, json_of, protobuf_of
from tests.schema.golden import say
from tests.schema.oracle import Oracle, raw_of

DATA = Path(__file__).parents[1]
ROUNDS = 9


def recorded() -> dict[str, tuple[str, bytes, bytes]]:
    """Key -> full name of the kind, protobuf, JSON of what a real API server answered."""
    found = {}
    for file in (DATA / "data/kube-objects.jsonl", DATA / "schema/kube-objects.jsonl"):
        for line in file.read_text().splitlines():
            one = json.loads(line)
            text = one["json"].strip().encode()
            name = f"{json.loads(text)['apiVersion']}.{one['kind']}"
            found[one["key"]] = name, base64.b64decode(one["protobuf"]), text
    return found


def pods(templates: int, each: int) -> list[bytes]:
    """Pods of some templates, 2.6 KB of protobuf each, every one with its own names and status."""
    rng = Random(1)
    full = json.loads(recorded()["/registry/pods/shop/full"][2])
    meta, spec = full["metadata"], full["spec"]
    del meta["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    del meta["managedFields"][0]
    found = []
    for template in range(templates):
        spec["containers"][0]["image"] = f"registry.example/app-{template}:v1"
        for index in range(each):
            meta["name"] = f"app-{template}-{rng.randbytes(3).hex()}"
            meta["uid"] = rng.randbytes(16).hex()
            spec["nodeName"] = f"node-{rng.randint(0, 99)}"
            full["status"]["podIP"] = f"10.0.{template}.{index}"
            found.append(protobuf_of(json.dumps(full).encode()))
    return found


def nodes(count: int) -> list[bytes]:
    """Nodes as recorded, each with its own name."""
    node = json.loads(recorded()["/registry/minions/node-1"][2])
    found = []
    for index in range(count):
        node["metadata"]["name"] = f"node-{index}"
        found.append(protobuf_of(json.dumps(node).encode()))
    return found


#: What makes the function of one round ready, untimed, and what that is called with.
Way = tuple[Callable[[], Callable[[bytes], object]], list[bytes]]


def best(ways: dict[str, Way]) -> dict[str, float]:
    """Seconds of CPU of each way for all its inputs: the best of several rounds, taken in turn."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (ready, inputs) in ways.items():
            work = ready()
            start = process_time()
            for one in inputs:
                work(one)
            found[name] = min(found[name], process_time() - start)
    return found


def fresh(other: bytes) -> Callable[[bytes], bytes]:
    """`json_of` that has compiled the kind but has nothing kept of the objects to come."""
    made = Transcoder(schema())
    made.json_of(other)
    return made.json_of


def main() -> None:
    """Print a table: microseconds an object, MB of JSON a second, and each beside json_of."""
    oracle, objects = Oracle(schema()), recorded()
    chosen = {
        "500 Pods of 50 templates": ("v1.Pod", "/registry/pods/shop/bare", pods(50, 10)),
        "500 Pods, no two alike": ("v1.Pod", "/registry/pods/shop/bare", pods(500, 1)),
        "500 Nodes": ("v1.Node", "/registry/minions/node-1", nodes(500)),
    }
    for title, (name, other, values) in chosen.items():
        parsed = type(oracle.new(name))
        texts, raws = [*map(json_of, values)], [*map(raw_of, values)]
        size, count = sum(map(len, texts)), len(values)
        say(f"{title}: {sum(map(len, values)) // count} bytes of protobuf, {size // count} of JSON")
        ready = partial(fresh, objects[other][1])
        ways: dict[str, Way] = {
            "json_of": (ready, values),
            "protobuf_of": (lambda: protobuf_of, texts),
            "msgspec": (lambda: lambda text: msgspec.json.encode(msgspec.json.decode(text)), texts),
            "stdlib json": (
                lambda: lambda text: json.dumps(json.loads(text), separators=(",", ":")), texts,
            ),
            "upb parse": (lambda: parsed.FromString, raws),
            "upb MessageToJson": (
                lambda: lambda raw: MessageToJson(parsed.FromString(raw), indent=None), raws,
            ),
        }  # fmt: skip
        times = best(ways)
        for way, took in times.items():
            micros, rate = took / count * 1e6, size / took / 1e6
            beside = took / times["json_of"]
            say(f"    {way:18} {micros:9.1f} us {rate:8.1f} MB/s   x{beside:.2f}")
