"""Protobuf field numbers of what selectors may ask for: facts of the Kubernetes API.

Numbers of a published API never change. Without a schema a number says nothing, so a declared field
that is not here can't be read from an object stored as protobuf, and the codec says so.
"""

from __future__ import annotations

#: ObjectMeta: field 1 of every kind that is stored.
OBJECT_META = 1

#: Numbers of its members. labels are entries of key 1 and value 2.
META: dict[str, int] = {
    "name": 1,
    "generateName": 2,
    "namespace": 3,
    "selfLink": 4,
    "uid": 5,
    "resourceVersion": 6,
    "labels": 11,
    "managedFields": 17,
}

#: group and kind -> path in JSON -> (number of each step, what its value is). A negative number:
#: the first of a list.
NUMBERS: dict[tuple[str, str], dict[tuple[str | int, ...], tuple[tuple[int, ...], type]]] = {
    ("", "Pod"): {
        ("spec", "nodeName"): ((2, 10), str),
        ("spec", "restartPolicy"): ((2, 3), str),
        ("spec", "schedulerName"): ((2, 19), str),
        ("spec", "serviceAccountName"): ((2, 8), str),
        ("spec", "serviceAccount"): ((2, 9), str),
        ("spec", "hostNetwork"): ((2, 11), bool),
        ("status", "phase"): ((3, 1), str),
        ("status", "podIP"): ((3, 6), str),
        ("status", "podIPs", 0, "ip"): ((3, -12, 1), str),
        ("status", "nominatedNodeName"): ((3, 11), str),
    },
    ("", "Node"): {("spec", "unschedulable"): ((2, 4), bool)},
    ("", "Namespace"): {("status", "phase"): ((3, 1), str)},
    ("", "Secret"): {("type",): ((3,), str)},
    ("", "Service"): {
        ("spec", "clusterIP"): ((2, 3), str),
        ("spec", "type"): ((2, 4), str),
    },
    ("", "ReplicationController"): {("status", "replicas"): ((3, 1), int)},
    ("", "Event"): {
        ("involvedObject", "kind"): ((2, 1), str),
        ("involvedObject", "namespace"): ((2, 2), str),
        ("involvedObject", "name"): ((2, 3), str),
        ("involvedObject", "uid"): ((2, 4), str),
        ("involvedObject", "apiVersion"): ((2, 5), str),
        ("involvedObject", "resourceVersion"): ((2, 6), str),
        ("involvedObject", "fieldPath"): ((2, 7), str),
        ("reason",): ((3,), str),
        ("source", "component"): ((5, 1), str),
        ("source", "host"): ((5, 2), str),
        ("type",): ((9,), str),
        ("reportingComponent",): ((14,), str),
    },
    ("apps", "ReplicaSet"): {("status", "replicas"): ((3, 1), int)},
    ("batch", "Job"): {
        ("status", "active"): ((3, 4), int),
        ("status", "succeeded"): ((3, 5), int),
        ("status", "failed"): ((3, 6), int),
    },
    ("certificates.k8s.io", "CertificateSigningRequest"): {
        ("spec", "signerName"): ((2, 7), str),
    },
    ("certificates.k8s.io", "ClusterTrustBundle"): {("spec", "signerName"): ((2, 1), str)},
    ("certificates.k8s.io", "PodCertificateRequest"): {
        ("spec", "signerName"): ((2, 1), str),
        ("spec", "podName"): ((2, 2), str),
        ("spec", "nodeName"): ((2, 6), str),
    },
    ("resource.k8s.io", "ResourceSlice"): {
        ("spec", "driver"): ((2, 1), str),
        ("spec", "nodeName"): ((2, 3), str),
    },
}
