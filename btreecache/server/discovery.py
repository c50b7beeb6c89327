"""Discovery: what there is to be asked, as the documents that clients read first. Pure.

The plain form is a document for each group version, the aggregated one (kubectl since 1.26 asks for
it) has all of them in two. No document is empty or says that it is stale: what it names is served.
"""

from __future__ import annotations

from collections.abc import Iterable

from btreecache.resources import VERBS, Resource, Resources

#: The API whose behaviour this server has (`docs/reads.md` says where it differs).
KUBERNETES_MAJOR, KUBERNETES_MINOR = "1", "36"

Document = dict[str, object]


def version(build: str, platform: str) -> Document:
    """`/version`. `build` is our own version: behind the plus, as distributions say theirs."""
    return {
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "gitVersion": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+btreecache.{build}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": platform,
    }


def paths(resources: Resources) -> Document:
    """`/`: where to look."""
    found = [
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    for group, versions in resources.groups().items():
        below = f"/apis/{group}" if group else "/api"
        found += [below] if group else []
        found += [f"{below}/{one}" for one in versions]
    return {"paths": sorted(found)}


def api_versions(resources: Resources, address: str) -> Document:
    """`/api`: the versions of the core group. `address`: where this server is, HOST:PORT."""
    return {
        "kind": "APIVersions",
        "versions": [*resources.groups().get("", ())],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def api_group_list(resources: Resources) -> Document:
    """`/apis`: every group but the core one."""
    groups = [_group(name, versions) for name, versions in resources.groups().items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_group(resources: Resources, group: str) -> Document:
    """`/apis/<group>`. KeyError for a group that isn't there."""
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        **_group(group, resources.groups()[group]),
    }


def _group(name: str, versions: tuple[str, ...]) -> Document:
    listed = [{"groupVersion": f"{name}/{one}", "version": one} for one in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def api_resource_list(resources: Resources, group: str, version: str) -> Document:
    """`/api/<version>` and `/apis/<group>/<version>`. The core group's has no apiVersion."""
    return {
        "kind": "APIResourceList",
        **({"apiVersion": "v1"} if group else {}),
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [_resource(one) for one in resources.of(group, version)],
    }


def _resource(resource: Resource) -> Document:
    described: Document = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": [*VERBS],
    }
    if resource.short_names:
        described["shortNames"] = [*resource.short_names]
    if resource.categories:
        described["categories"] = [*resource.categories]
    return described


def aggregated(resources: Resources, groups: Iterable[str], version: str) -> Document:
    """`/api` and `/apis` as one document: an APIGroupDiscoveryList of these groups."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_discovered(resources, group) for group in groups],
    }


def _discovered(resources: Resources, group: str) -> Document:
    """A group with its versions, preferred first, and all that they have."""
    versions = [
        {
            "version": version,
            "resources": [_entry(one, version) for one in resources.of(group, version)],
            "freshness": "Current",
        }
        for version in resources.groups()[group]
    ]
    return {"metadata": {"name": group} if group else {}, "versions": versions}


def _entry(resource: Resource, version: str) -> Document:
    entry: Document = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": [*VERBS],
    }
    if resource.short_names:
        entry["shortNames"] = [*resource.short_names]
    if resource.categories:
        entry["categories"] = [*resource.categories]
    return entry
