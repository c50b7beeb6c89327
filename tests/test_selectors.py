"""Selectors against tables: the grammar, the exact error texts, the fields of each resource."""

from __future__ import annotations

import pytest

from btreecache.errors import BadRequest
from btreecache.fields import custom_fields, fields_of
from btreecache.selectors import FieldSelector, LabelSelector

PRINTED = [
    ("", ""),
    ("\rx", "x"),
    ("x= ,z= ", "x=,z="),
    ("z=c,x=a,y==b", "x=a,y==b,z=c"),
    ("x in (b, a,,a)", "x in (,a,b)"),
    ("x in ()", "x in ()"),
    ("x notin (, a)", "x notin (,a)"),
    ("x in (a,,,)", "x in (,a)"),
    ("a in (x,notin,in)", "a in (in,notin,x)"),
    ("in in (in),!notin", "in in (in),!notin"),
    ("x>1,z<5", "x>1,z<5"),
    ("0.1.2.domain/99 notin\t\n(10.10.100.1)", "0.1.2.domain/99 notin (10.10.100.1)"),
]

NAME = (
    "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'My"
)
VALUE = (
    f"a valid label must be an empty string or {NAME}Value',  or 'my_value',  or '12345', regex "
    "used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
KEY = (
    f"name part must {NAME}Name',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
REQUIREMENT = "unable to parse requirement: "
OPERATORS = "expected: in, notin, =, ==, !=, gt, lt"
INTEGER = "for 'Gt', 'Lt' operators, the value must be an integer"

LABEL_ERRORS = [
    ("app===b", f"{REQUIREMENT}found '=', expected: identifier"),
    ("x==a==b", "found '==', expected: ',' or 'end of string'"),
    ("!x=a", "found '=', expected: ',' or 'end of string'"),
    ("(", "found '(', expected: !, identifier, or 'end of string'"),
    ("x,,y", "found ',', expected: identifier after ','"),
    ("x,", "found '', expected: identifier after ','"),
    ("!", f"{REQUIREMENT}found '', expected: identifier"),
    ("x nott in", f"{REQUIREMENT}found 'nott', {OPERATORS}"),
    ("x in", f"{REQUIREMENT}found '' expected: '('"),
    ("x in (", f"{REQUIREMENT}found '', expected: ',', ')' or identifier"),
    ("x in (a b)", f"{REQUIREMENT}found 'b', expected: ',' or ')'"),
    ("x in (a,", f"{REQUIREMENT}found '', expected: ',', or identifier"),
    ("x<a", f'{REQUIREMENT}values[0]: Invalid value: "a": {INTEGER}'),
    ("x>", f'{REQUIREMENT}values[0]: Invalid value: "": {INTEGER}'),
    ("x=a||b", f'{REQUIREMENT}values[0][x]: Invalid value: "a||b": {VALUE}'),
    (
        "x>-a",
        f'{REQUIREMENT}[values[0]: Invalid value: "-a": {INTEGER}, '
        f'values[0][x]: Invalid value: "-a": {VALUE}]',
    ),
    ("-x", f'{REQUIREMENT}<nil>: Invalid value: "-x": {KEY}'),
    ("x\0", f'{REQUIREMENT}<nil>: Invalid value: "x\\x00": {KEY}'),
    ("/x", f'{REQUIREMENT}<nil>: Invalid value: "/x": prefix part must be non-empty'),
    ("a/", f'{REQUIREMENT}<nil>: Invalid value: "a/": name part must be non-empty; {KEY}'),
]


@pytest.mark.parametrize(("text", "printed"), PRINTED)
def test_a_label_selector_prints_as_upstream(text: str, printed: str) -> None:
    assert str(LabelSelector.parse(text)) == printed


@pytest.mark.parametrize(("text", "message"), LABEL_ERRORS)
def test_label_errors_word_for_word(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as error:
        LabelSelector.parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=a,b", "invalid selector: 'x=a,b'; can't understand 'b'"),
        ("x==a==b", "invalid field selector: unescaped character in value: 61"),
        ("x=\\a", "invalid field selector: invalid escape sequence: \\a"),
        ("x=\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_field_errors_word_for_word(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as error:
        FieldSelector.parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        (",x=a,", "x=a"),
        ("=,!=", ""),
        ("y!=b,x==a", "x=a,y!=b"),
        ("x=a\\=\\,\\\\", "x=a\\=\\,\\\\"),
        ("함=수,목=록", "목=록,함=수"),
    ],
)
def test_a_field_selector_prints_as_upstream(text: str, printed: str) -> None:
    assert str(FieldSelector.parse(text)) == printed


def test_what_a_selector_pins() -> None:
    labels = LabelSelector.parse("a in (x),b!=y,b=z,c in (p,q)")
    assert [labels.exact(name) for name in "abcd"] == ["x", "z", None, None]
    fields = FieldSelector.parse("metadata.name=n,metadata.namespace!=s")
    assert (fields.name, fields.namespace) == ("n", None)


@pytest.mark.parametrize(
    ("group", "resource", "name", "message"),
    [
        ("", "pods", "spec.nope", "field label not supported: spec.nope"),
        ("", "nodes", "metadata.namespace", "field label not supported: metadata.namespace"),
        ("batch", "jobs", "a", 'field label "a" not supported for batchv1.Job'),
        ("events.k8s.io", "events", "involvedObject.kind",
         "field label not supported: involvedObject.kind"),
        ("apps", "deployments", "a",
         '"a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
    ],
)  # fmt: skip
def test_an_unsupported_field(group: str, resource: str, name: str, message: str) -> None:
    with pytest.raises(BadRequest) as error:
        FieldSelector.parse(f"{name}=x").transform(fields_of(group, resource).convert)
    assert str(error.value) == message


def test_fields_of_objects() -> None:
    pods = fields_of("", "pods")
    assert str(FieldSelector.parse("spec.host=n").transform(pods.convert)) == "spec.nodeName=n"
    pod = {"metadata": {"name": "p"}, "status": {"podIPs": [{"ip": "::1"}], "podIP": 7}}
    values = dict(zip([one.name for one in pods.fields], pods.values(pod), strict=True))
    assert values["metadata.name"] == "p"
    assert values["status.podIP"] == "::1"
    assert values["spec.hostNetwork"] == "false"
    assert values["spec.restartPolicy"] == "Always"
    assert pods.values(None) == pods.values([]) == pods.values({})
    custom = custom_fields([".spec.n", ".spec.b"], namespaced=False)
    assert custom.values({"spec": {"n": 3, "b": True}}) == ("", "3", "true")
    with pytest.raises(BadRequest):
        custom_fields([".a[0]"], namespaced=True)
