"""Keys of the shape that a Kubernetes API server stores: /registry/pods/<namespace>/<name>."""

from __future__ import annotations

from pathlib import Path
from random import Random

#: The alphabet of Kubernetes' generated names.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
APPS = ("frontend-gateway", "checkout-worker", "metrics-scraper", "session-cache", "node-agent")
PODS_PER_NAMESPACE = 200


def pod_keys(n: int, rng: Random) -> list[bytes]:
    """`n` different keys in order, about 57 bytes each."""
    spaces = [f"team-{_word(rng, 5)}-production" for _ in range(n // PODS_PER_NAMESPACE + 1)]
    keys: set[bytes] = set()
    while len(keys) < n:
        name = f"{rng.choice(APPS)}-{_word(rng, 5)}{len(keys) % 10}-{_word(rng, 5)}"
        keys.add(f"/registry/pods/{rng.choice(spaces)}/{name}".encode())
    return sorted(keys)


def write_key_file(path: Path, loaded: int, extra: int, rng: Random) -> None:
    """A key a line: `loaded` in order, then `extra` ones spread evenly among those."""
    keys = pod_keys(loaded + extra, rng)
    spare = set(rng.sample(range(len(keys)), extra))
    lines = [key for i, key in enumerate(keys) if i not in spare]
    lines += [keys[i] for i in sorted(spare)]
    path.write_bytes(b"\n".join(lines) + b"\n")


def read_key_file(path: Path) -> list[bytes]:
    """The keys of `write_key_file`, the loaded ones first."""
    return path.read_bytes().splitlines()


def _word(rng: Random, length: int) -> str:
    return "".join(rng.choices(ALPHABET, k=length))
