"""Questions of every kind, from a seed: what a client may come to ask, and worse."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from urllib.parse import quote

from tests.apiservers.bodies import NAMESPACES, Resource

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PROTOBUF = "application/vnd.kubernetes.protobuf"
YAML = "application/yaml"

#: Forms of lists and of objects; None: no Accept header.
LIST_FORMS = (
    "application/json", "application/json", None, "*/*", TABLE, METADATA_LIST, PROTOBUF, YAML,
    f"{PROTOBUF},application/json", f"{TABLE},application/json", "application/json;pretty=1",
    "text/plain", "application/json;as=Unicorn;g=meta.k8s.io;v=v1", "application/*",
    "text/html,*/*;q=0.8",
)  # fmt: skip
FORMS_OF_ONE = (*LIST_FORMS, METADATA)
WATCH_FORMS = ("application/json", "application/json", TABLE, METADATA, PROTOBUF, None)

LABELS = (
    "parity=0", "parity=1", "parity!=0", "parity in (0,1)", "parity notin (0)", "!parity", "parity",
    "nothing=here", "parity=0,parity=1", "parity>0", "a in", "=", "parity=0,,", "-bad=1",
    "parity=" + "x" * 64,
)  # fmt: skip
FIELDS = (
    "metadata.name=n1", "metadata.namespace=blue", "metadata.name!=n1", "metadata.name=no",
    "metadata.name=n1,metadata.namespace=red", "spec.unicorn=1", "metadata.name", "=",
    "metadata.labels=x",
)  # fmt: skip
ODD_VERSIONS = ("abc", "-1", "1.5", "0x10", " 5", "18446744073709551616", "99999999")
ODD_TOKENS = ("x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", "!!!", "")
ODD_PATHS = (
    "/nothing", "/api/v2", "/api/v1/unicorns", "/apis/unicorn.io", "/apis/unicorn.io/v1",
    "/apis/unicorn.io/v1/horns", "/api/v1/namespaces/blue/unicorns",
    "/api/v1/namespaces/blue/unicorns/x",
    "/openapi/v9", "/apis/apps/v9/deployments",
)  # fmt: skip
DOCUMENTS = ("/", "/api", "/apis", "/version", "/healthz", "/livez", "/readyz")


@dataclass(frozen=True)
class Question:
    """A GET. `kind`: what it is about; `chained`: its pages are followed to the end."""

    kind: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    accept: str | None = "application/json"
    gzip: bool = False
    chained: bool = False

    @property
    def url(self) -> str:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in self.query)
        return f"{self.path}?{query}" if query else self.path

    def __str__(self) -> str:
        return f"{self.kind}: GET {self.url} Accept: {self.accept}"


class Questions:
    """Endless. `revisions`: those that there are."""

    def __init__(
        self, rng: Random, resources: tuple[Resource, ...], names: tuple[str, ...], revisions: range
    ) -> None:
        self.rng, self.resources, self.names, self.revisions = rng, resources, names, revisions
        self._kinds = (
            [self.get] * 4 + [self.list] * 6 + [self.chain] * 3 + [self.exact] * 3
            + [self.watch] * 4 + [self.malformed] * 4 + [self.odd_path, self.document]
        )  # fmt: skip

    def next(self) -> Question:
        return self.rng.choice(self._kinds)()

    def _collection(self) -> tuple[Resource, str]:
        resource = self.rng.choice(self.resources)
        namespaces = ["", *NAMESPACES, "empty"] if resource.namespaces[0] else [""]
        return resource, self.rng.choice(namespaces)

    def _revision(self) -> str:
        return str(self.rng.choice(self.revisions))

    def get(self) -> Question:
        resource, _ = self._collection()
        namespace = self.rng.choice(resource.namespaces)
        path = resource.url(namespace, self.rng.choice((*self.names, "no", "NO!", "n1")))
        version = self.rng.choice(["", "", "0", self._revision(), *ODD_VERSIONS[:2]])
        query = (("resourceVersion", version),) if version else ()
        pretty = (("pretty", self.rng.choice(["true", "false", "1", "no"])),)
        query += pretty if self.rng.random() < 0.2 else ()
        return Question("get", path, query, self.rng.choice(FORMS_OF_ONE))

    def list(self) -> Question:
        resource, namespace = self._collection()
        rng, query = self.rng, []
        if rng.random() < 0.4:
            query.append(("labelSelector", rng.choice(LABELS)))
        if rng.random() < 0.25:
            query.append(("fieldSelector", rng.choice(FIELDS)))
        if rng.random() < 0.5:
            version = rng.choice(["0", "0", self._revision()])
            query.append(("resourceVersion", version))
            if rng.random() < 0.4:
                query.append(("resourceVersionMatch", "NotOlderThan"))
        if rng.random() < 0.15:
            query.append(("pretty", rng.choice(["true", "false", "1", "no"])))
        if rng.random() < 0.1:
            query.append(("includeObject", rng.choice(["None", "Metadata", "Object", "Wrong"])))
        form = rng.choice(LIST_FORMS)
        return Question("list", resource.url(namespace), tuple(query), form, rng.random() < 0.2)

    def chain(self) -> Question:
        resource, namespace = self._collection()
        query = [("limit", self.rng.choice(["1", "2", "3", "5", "500"]))]
        if self.rng.random() < 0.3:
            query.append(("labelSelector", self.rng.choice(LABELS[:6])))
        if self.rng.random() < 0.4:
            query.append(("resourceVersion", self._revision()))
            if self.rng.random() < 0.5:
                match = self.rng.choice(["Exact", "NotOlderThan"])
                query.append(("resourceVersionMatch", match))
        form = self.rng.choice(["application/json", "application/json", TABLE, METADATA_LIST])
        return Question("chain", resource.url(namespace), tuple(query), form, chained=True)

    def exact(self) -> Question:
        resource, namespace = self._collection()
        query = [("resourceVersion", self._revision()), ("resourceVersionMatch", "Exact")]
        if self.rng.random() < 0.3:
            query.append(("labelSelector", self.rng.choice(LABELS[:8])))
        form = self.rng.choice(LIST_FORMS[:10])
        return Question("exact", resource.url(namespace), tuple(query), form)

    def watch(self) -> Question:
        resource, namespace = self._collection()
        rng = self.rng
        query = [("watch", rng.choice(["true", "1", "True"])), ("timeoutSeconds", "1")]
        version = rng.choice(["", "0", self._revision(), self._revision(), "1", "abc"])
        if version:
            query.append(("resourceVersion", version))
        if rng.random() < 0.4:
            query.append(("allowWatchBookmarks", "true"))
        if rng.random() < 0.3:
            query.append(("sendInitialEvents", rng.choice(["true", "true", "false"])))
            if rng.random() < 0.8:
                query.append(("resourceVersionMatch", "NotOlderThan"))
        if rng.random() < 0.3:
            query.append(("labelSelector", rng.choice(LABELS[:8])))
        if rng.random() < 0.2:
            query.append(("fieldSelector", rng.choice(FIELDS[:4])))
        return Question("watch", resource.url(namespace), tuple(query), rng.choice(WATCH_FORMS))

    def malformed(self) -> Question:
        resource, namespace = self._collection()
        rng = self.rng
        query = rng.choice(
            [
                [("resourceVersion", rng.choice(ODD_VERSIONS[:5]))],
                [("resourceVersionMatch", "Exact")],
                [("resourceVersion", "0"), ("resourceVersionMatch", "Exact")],
                [("resourceVersion", "5"), ("resourceVersionMatch", "Sometimes")],
                [("continue", rng.choice(ODD_TOKENS)), ("limit", "2")],
                [("continue", "x"), ("resourceVersion", self._revision())],
                [("continue", "x"), ("resourceVersionMatch", "NotOlderThan")],
                [("limit", rng.choice(["-1", "abc", "0", "1.5", "99999999999999999999"]))],
                [("labelSelector", rng.choice(LABELS[10:]))],
                [("fieldSelector", rng.choice(FIELDS[5:]))],
                [("sendInitialEvents", "true")],
                [("watch", "true"), ("timeoutSeconds", rng.choice(["abc", "1.5"]))],
                [("watch", "maybe"), ("timeoutSeconds", "1"), ("resourceVersion", "0")],
                [("watch", "true"), ("timeoutSeconds", "1"), ("resourceVersionMatch", "Exact")],
                [("unknown", "parameter")],
                [("limit", "2"), ("limit", "3")],
            ]
        )
        return Question("malformed", resource.url(namespace), tuple(query))

    def odd_path(self) -> Question:
        return Question("odd path", self.rng.choice(ODD_PATHS))

    def document(self) -> Question:
        groups = {resource.path for resource in self.resources}
        paths = [*DOCUMENTS, *groups, *(one.rpartition("/")[0] for one in groups if "apis" in one)]
        return Question("document", self.rng.choice(sorted(paths)))
