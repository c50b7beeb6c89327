"""The golden archive of this version's format: `python -m tests.archive.golden`.

It is made once for each format and stays as it is: every later version must read it. The numbers
beside it were computed by the checker's other half (`etcdsim.digest`), not by what is checked.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from btreecache import Delete, Put, Store
from btreecache.archive import Archive
from btreecache.archive.records import FORMAT
from btreecache.codec import Kubernetes
from etcdsim.digest import RunningDigest
from etcdsim.model import Model
from etcdsim.txn import DeleteRange
from etcdsim.txn import Put as ModelPut
from tests.fakes import Clock

DATA = Path(__file__).parents[1] / "data"
REVISIONS = 60


def golden(format_number: int) -> tuple[Path, Path]:
    """The archive of a format, and what it must say."""
    name = DATA / f"archive-format-{format_number}"
    return name.with_suffix(".fs"), name.with_suffix(".json")


def make(path: Path) -> dict[str, list[str]]:
    """An archive of one store's life, and the digest at each revision, from the first on."""
    rng, clock, model = Random(1), Clock(), Model()
    clock.now_s = 1_000.0
    with Archive.open(str(path), group_revisions=9, wall=clock, rng=Random(1)) as archive:
        store = Store(archive=archive.history(b"/registry/"), codec=Kubernetes())
        for number in range(REVISIONS):
            writes: list[Put | Delete] = []
            changes: list[ModelPut | DeleteRange] = []
            for key in rng.sample([b"/registry/%02d" % i for i in range(40)], rng.choice([1, 3])):
                if store.get(key) and rng.random() < 0.3:
                    writes.append(Delete(key))
                    changes.append(DeleteRange(key))
                else:
                    value = rng.choice([_object, _bytes])(rng)
                    writes.append(Put(key, value))
                    changes.append(ModelPut(key, value))
            clock.now_s += 1.0
            store.txn(writes)
            model.txn((), changes)
            if number % 9 == 8:
                archive.flush()
    digests = RunningDigest(model, b"/registry/", True)
    for ending in (".index", ".lock", ".tmp"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    return {"digests": [f"{digests.at(at)[1]:064x}" for at in range(1, model.revision + 1)]}


def _bytes(rng: Random) -> bytes:
    return bytes([rng.randrange(256)]) * rng.choice([0, 3, 40])


def _object(rng: Random) -> bytes:
    labels = {name: "b" * rng.randrange(3) for name in rng.sample("xyz", rng.randrange(3))}
    return json.dumps({"kind": "Pod", "metadata": {"name": "a", "labels": labels}}).encode()


def main() -> None:
    path, numbers = golden(FORMAT)
    path.unlink(missing_ok=True)
    numbers.write_text(json.dumps(make(path), indent=1) + "\n")


if __name__ == "__main__":
    main()
