"""The table of resources: against a real server's discovery and its keys, and how it is asked."""

from __future__ import annotations

import pytest

from btreecache.errors import BadRequest
from btreecache.resources import BUILT_IN, Resource, Resources, parse_resource
from tests.codec.objects import recorded

#: What the core group of a real API server has (1.20, of the kinds that are stored), from its
#: discovery: plural, kind, namespaced, short names.
CORE = """configmaps ConfigMap 1 cm; endpoints Endpoints 1 ep; events Event 1 ev;
limitranges LimitRange 1 limits; namespaces Namespace 0 ns; nodes Node 0 no;
persistentvolumeclaims PersistentVolumeClaim 1 pvc; persistentvolumes PersistentVolume 0 pv;
pods Pod 1 po; podtemplates PodTemplate 1; replicationcontrollers ReplicationController 1 rc;
resourcequotas ResourceQuota 1 quota; secrets Secret 1; serviceaccounts ServiceAccount 1 sa;
services Service 1 svc"""


def test_the_core_group_is_as_a_server_says() -> None:
    said = [line.split() for line in CORE.replace("\n", " ").split(";")]
    found = [
        [one.plural, one.kind, "1" if one.namespaced else "0", *one.short_names]
        for one in BUILT_IN.of("", "v1")
    ]
    assert found == said


def test_keys_of_a_real_server_lie_under_their_prefix() -> None:
    kinds = {one.kind: one for one in BUILT_IN.all}
    for one in recorded():
        resource = kinds[one.kind]
        assert one.key.startswith(resource.prefix())
        assert one.key[len(resource.prefix()) :].count(b"/") == resource.namespaced


@pytest.mark.parametrize(
    ("group", "version", "plural", "prefix"),
    [
        ("", "v1", "nodes", b"/registry/minions/"),
        ("", "v1", "services", b"/registry/services/specs/"),
        ("", "v1", "endpoints", b"/registry/services/endpoints/"),
        ("", "v1", "replicationcontrollers", b"/registry/controllers/"),
        ("", "v1", "pods", b"/registry/pods/"),
        ("apps", "v1", "deployments", b"/registry/deployments/"),
        ("networking.k8s.io", "v1", "ingresses", b"/registry/ingress/"),
        ("coordination.k8s.io", "v1", "leases", b"/registry/leases/"),
        ("events.k8s.io", "v1", "events", b"/registry/events/"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions",
         b"/registry/apiextensions.k8s.io/customresourcedefinitions/"),
        ("apiregistration.k8s.io", "v1", "apiservices",
         b"/registry/apiregistration.k8s.io/apiservices/"),
    ],
)  # fmt: skip
def test_prefixes(group: str, version: str, plural: str, prefix: bytes) -> None:
    resource = BUILT_IN.get(group, version, plural)
    assert resource is not None
    assert resource.prefix() == prefix
    assert resource.prefix(b"/other/") == b"/other" + prefix[len(b"/registry") :]


def test_keys() -> None:
    pods, nodes = BUILT_IN.named("po"), BUILT_IN.named("node")
    assert pods is not None
    assert nodes is not None
    assert pods.key("shop", "web") == b"/registry/pods/shop/web"
    assert nodes.key("", "n1") == b"/registry/minions/n1"
    assert (pods.list_kind, pods.singular, pods.group_version("v1")) == ("PodList", "pod", "v1")


def test_names() -> None:
    for resource in BUILT_IN.all:
        full = f"{resource.plural}.{resource.group}".rstrip(".")
        for name in (full, full.upper()):
            found = BUILT_IN.named(name)
            assert found is not None
            assert found.plural == resource.plural
        assert resource.prefix().endswith(b"/")
        assert resource.plural == resource.plural.lower()
    events = BUILT_IN.named("events")
    newer = BUILT_IN.named("events.events.k8s.io")
    assert (events and events.group, newer and newer.group) == ("", "events.k8s.io")
    assert BUILT_IN.named("deploy") is BUILT_IN.get("apps", "v1", "deployments")
    assert BUILT_IN.named("nope") is None
    assert BUILT_IN.get("apps", "v2", "deployments") is None
    assert BUILT_IN.get("", "v1", "Pods") is None


def test_groups() -> None:
    groups = BUILT_IN.groups()
    assert next(iter(groups)) == ""
    assert groups["autoscaling"] == ("v2", "v1")
    assert groups["flowcontrol.apiserver.k8s.io"] == ("v1", "v1beta3", "v1beta2", "v1beta1")
    odd = parse_resource("x.io/foo/as:A"), parse_resource("x.io/v1alpha1/bs:B")
    more = (parse_resource("x.io/v2/cs:C"), parse_resource("x.io/v10/ds:D"))
    assert Resources((*odd, *more)).groups() == {"x.io": ("v10", "v2", "v1alpha1", "foo")}


def test_declared_resources() -> None:
    one = parse_resource(
        "stable.example.com/v1/crontabs:CronTab:namespaced=/registry/stable.example.com/crontabs"
    )
    assert one == Resource(
        "stable.example.com", "crontabs", "CronTab", True, ("v1",),
        "/registry/stable.example.com/crontabs",
    )  # fmt: skip
    assert one.prefix(b"/elsewhere") == b"/registry/stable.example.com/crontabs/"
    short = parse_resource("stable.example.com/v1/crontabs:CronTab")
    assert short.prefix() == one.prefix()
    assert not short.namespaced
    assert parse_resource("v1/pods:Pod:namespaced").prefix() == b"/registry/pods/"
    assert parse_resource("/v1/pods:Pod:cluster=/x/").prefix() == b"/x/"
    more = BUILT_IN.extended([one, parse_resource("v1/pods:Pod:namespaced=/mine")])
    assert more.get("stable.example.com", "v1", "crontabs") is one
    pods = more.named("pods")
    assert pods is not None
    assert pods.prefix() == b"/mine/"
    assert len(more.all) == len(BUILT_IN.all) + 1
    with pytest.raises(BadRequest):
        BUILT_IN.extended([one, short])


@pytest.mark.parametrize(
    "text",
    [
        "", "pods", "v1/pods", "v1/pods:", "v1/pods:pod", "v1/Pods:Pod", "v1/pods:Pod:both",
        "a/b/c/d:E", "v1/pods:Pod=", "v1/pods:Pod=registry", "v1/pods:Pod=/", "v1/pods:Pod=//x",
        "v1/pods:Pod=/a/../b", "v1/pods:Pod=/a/.", "-x/v1/pods:Pod", "a..b/v1/pods:Pod",
        "v1/pods:Pod\n", "v1/pods:Pod:namespaced:x", f"v1/{'p' * 64}:Pod", "v1/pods:Pod=/a//b",
    ],
)  # fmt: skip
def test_malformed_declarations(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_resource(text)
