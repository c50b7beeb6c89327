"""Label and field selectors: what they mean, and every error as a Kubernetes API server words it.

A selector is a conjunction of requirements, immutable, hashable, safe in any thread. Parsing costs
O(length), with no recursion, and raises BadRequest alone, whatever the text. Texts and order follow
apimachinery (`pkg/labels/selector.go`, `pkg/fields/selector.go`, `pkg/api/validate/content`), but:

- NUL is a character like others, so no label selector with it is valid. Upstream's lexer takes it
  for the end of the text, and then answers for a wider selector than was asked.
- A message names at most `BAD_VALUES_MAX` bad values, so that it can't outgrow its request.
- `LabelSelector.exact` looks at every requirement of the label, not only at the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from btreecache.errors import BadRequest, quoted

#: Bad values of one requirement that are named in its message (some 300 bytes each).
BAD_VALUES_MAX = 100
#: From so many requirements on a flat tuple of labels is made a dict first: O(labels + selector).
PAIRS_SCANNED_MAX = 4

NAME_BYTES_MAX = 63
PREFIX_BYTES_MAX = 253

_TOKEN = re.compile(r"==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+")
_SYMBOLS = frozenset(("==", "!=", "=", "!", "(", ")", ",", "<", ">"))
_END = ""
_BINARY = {"in": "in", "notin": "notin", "=": "=", "==": "==", "!=": "!=", ">": "gt", "<": "lt"}

_NAME_REGEX = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME = re.compile(_NAME_REGEX)
_DNS_LABEL_REGEX = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL = re.compile(_DNS_LABEL_REGEX)
_INTEGER = re.compile(r"[+-]?[0-9]+")
_CHARSET = (
    "consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_NAME_ERROR = (
    f"must {_CHARSET} (e.g. 'MyName',  or 'my.name',  or '123-abc', "
    f"regex used for validation is '{_NAME_REGEX}')"
)
_VALUE_ERROR = (
    f"a valid label must be an empty string or {_CHARSET} (e.g. 'MyValue',  or 'my_value',  or "
    f"'12345', regex used for validation is '({_NAME_REGEX})?')"
)
_PREFIX_ERROR = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_DNS_LABEL_REGEX}(\\.{_DNS_LABEL_REGEX})*')"
)
_INTEGER_ERROR = "for 'Gt', 'Lt' operators, the value must be an integer"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """`operator` is one of `in notin = == != gt lt exists !`; `values` are sorted and distinct."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        values = ",".join(self.values)
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case "gt":
                return f"{self.key}>{values}"
            case "lt":
                return f"{self.key}<{values}"
        return f"{self.key}{self.operator}{values}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements on labels, ordered by key; equal to any with the same set of requirements."""

    requirements: tuple[LabelRequirement, ...] = field(default=(), compare=False)
    _identity: frozenset[LabelRequirement] = field(init=False, repr=False)
    _tests: tuple[tuple[str, Callable[[str | None], bool]], ...] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_identity", frozenset(self.requirements))
        tests = tuple((one.key, _test(one)) for one in self.requirements)
        object.__setattr__(self, "_tests", tests)

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """The selector that `text` spells. O(n log n) in its length; BadRequest if it spells none.

        The order of equal keys is the text's; upstream's sort promises none for those.
        """
        requirements = _parse_labels(text)
        return cls(tuple(sorted(requirements, key=lambda one: one.key)))

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected. O(requirements)."""
        get = labels.get
        return all(test(get(key)) for key, test in self._tests)

    def matches_pairs(self, pairs: tuple[str, ...]) -> bool:
        """`matches` on labels held as a flat tuple: name, value, name, value, ... No name twice."""
        tests = self._tests
        if len(tests) >= PAIRS_SCANNED_MAX:
            return self.matches(dict(zip(pairs[::2], pairs[1::2], strict=True)))
        for key, test in tests:  # noqa: SIM110 (twice as fast as all())
            if not test(_value_of(pairs, key) if key in pairs else None):
                return False
        return True

    def exact(self, label: str) -> str | None:
        """A value that the label must have in all that is selected, or None if it isn't pinned."""
        for one in self.requirements:
            if one.key == label and one.operator in ("=", "==", "in") and len(one.values) == 1:
                return one.values[0]
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """`operator` is `=` or `!=`; a field that an object has not is the same as an empty one."""

    name: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{escape(self.value)}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Requirements on fields; equal to any with the same set of requirements."""

    requirements: tuple[FieldRequirement, ...] = field(default=(), compare=False)
    _identity: frozenset[FieldRequirement] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_identity", frozenset(self.requirements))

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """The selector that `text` spells. O(n log n) in its length; BadRequest if it spells none.

        Any field name passes here: what a resource supports is for `transform` to say. A term
        of neither name nor value (`=`) and an empty term are passed over, as upstream does.
        """
        return cls(tuple(_parse_fields(text)))

    def transform(self, convert: Callable[[str], str]) -> FieldSelector:
        """The same with each name converted (`ResourceFields.convert`), or what that raises."""
        return FieldSelector(
            tuple(
                FieldRequirement(convert(one.name), one.operator, one.value)
                for one in self.requirements
            )
        )

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements

    @property
    def name(self) -> str | None:
        """The object name that it pins: a list is then a read of one key (per namespace)."""
        return self.exact("metadata.name")

    @property
    def namespace(self) -> str | None:
        """The namespace that it pins."""
        return self.exact("metadata.namespace")

    def matches(self, fields: Mapping[str, str] | Callable[[str], str]) -> bool:
        """Whether an object with these fields is selected. O(requirements)."""
        for one in self.requirements:
            value = fields(one.name) if callable(fields) else fields.get(one.name, "")
            if (value == one.value) is (one.operator == "!="):
                return False
        return True

    def bind(self, names: Sequence[str]) -> Callable[[Sequence[str]], bool]:
        """A matcher on values that stand in the order of `names`. O(requirements) a match."""
        places = {name: place for place, name in enumerate(names)}
        tests = []
        for one in self.requirements:
            if one.name in places:
                tests.append((places[one.name], one.value, one.operator == "!="))
            elif (one.value == "") is (one.operator == "!="):
                return lambda _: False
        bound = tuple(tests)

        def match(values: Sequence[str]) -> bool:
            for place, value, negated in bound:  # noqa: SIM110 (twice as fast as all())
                if (values[place] == value) is negated:
                    return False
            return True

        return match

    def exact(self, name: str) -> str | None:
        """A value that the field must have in all that is selected, or None if it isn't pinned."""
        for one in self.requirements:
            if one.name == name and one.operator == "=":
                return one.value
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def escape(value: str) -> str:
    """A field value as it must be spelt in a selector."""
    return re.sub(r"[\\,=]", lambda found: "\\" + found[0], value)


def unescape(text: str) -> str:
    """The field value that `text` spells, or BadRequest."""

    def one(found: re.Match[str]) -> str:
        if not found[0].startswith("\\"):
            code = ord(found[0])
            raise _bad(f"invalid field selector: unescaped character in value: {code}")
        if found[0][1:] not in ("\\", ",", "="):
            raise _bad(f"invalid field selector: invalid escape sequence: {found[0]}")
        return found[0][1]

    return re.sub(r"\\.?|[,=]", one, text, flags=re.DOTALL)


def _parse_fields(text: str) -> Iterable[FieldRequirement]:
    text = _SURROGATE.sub("\ufffd", text)
    terms, start = [], 0
    for found in re.finditer(r"\\.|,", text, flags=re.DOTALL):
        if found[0] == ",":
            terms.append(text[start : found.start()])
            start = found.end()
    terms.append(text[start:])
    for term in sorted(filter(None, terms)):
        operator = re.search("!=|==|=", term)
        if operator is None:
            raise _bad(f"invalid selector: '{text}'; can't understand '{term}'")
        name, value = term[: operator.start()], unescape(term[operator.end() :])
        if name or value:
            yield FieldRequirement(name, "!=" if operator[0] == "!=" else "=", value)


def _parse_labels(text: str) -> list[LabelRequirement]:
    tokens = _TOKEN.findall(text)
    tokens.append(_END)
    if tokens[0] == _END:
        return []
    if not (tokens[0] == "!" or _is_identifier(tokens[0])):
        raise _bad(f"found '{tokens[0]}', expected: !, identifier, or 'end of string'")
    requirements, place = [], 0
    while True:
        try:
            requirement, place = _parse_requirement(tokens, place)
        except BadRequest as error:
            raise BadRequest(f"unable to parse requirement: {error}") from None
        requirements.append(requirement)
        if tokens[place] == _END:
            return requirements
        if tokens[place] != ",":
            raise _bad(f"found '{tokens[place]}', expected: ',' or 'end of string'")
        place += 1
        if not (tokens[place] == "!" or _is_identifier(tokens[place])):
            raise _bad(f"found '{tokens[place]}', expected: identifier after ','")


def _parse_requirement(tokens: list[str], place: int) -> tuple[LabelRequirement, int]:
    absent = tokens[place] == "!"
    place += absent
    key = tokens[place]
    if not _is_identifier(key):
        raise _bad(f"found '{key}', expected: identifier")
    if errors := _key_errors(key):
        raise _bad(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(errors)}")
    place += 1
    if absent:
        return LabelRequirement(key, "!"), place
    if tokens[place] in (_END, ","):
        return LabelRequirement(key, "exists"), place
    operator = _BINARY.get(tokens[place])
    if operator is None:
        raise _bad(f"found '{tokens[place]}', expected: {', '.join(_BINARY.values())}")
    place += 1
    if operator in ("in", "notin"):
        values, place = _parse_values(tokens, place)
    elif tokens[place] in (_END, ","):
        values = {""}
    elif _is_identifier(tokens[place]):
        values = {tokens[place]}
        place += 1
    else:
        raise _bad(f"found '{tokens[place]}', expected: identifier")
    ordered = tuple(sorted(values))
    _check_values(key, operator, ordered)
    return LabelRequirement(key, operator, ordered), place


def _parse_values(tokens: list[str], place: int) -> tuple[set[str], int]:
    """The values in parentheses; `()` and two commas in a row hold an empty one."""
    if tokens[place] != "(":
        raise _bad(f"found '{tokens[place]}' expected: '('")
    place += 1
    if tokens[place] == ")":
        return {""}, place + 1
    if not (tokens[place] == "," or _is_identifier(tokens[place])):
        raise _bad(f"found '{tokens[place]}', expected: ',', ')' or identifier")
    values: set[str] = set()
    while True:
        token, after = tokens[place], tokens[place + 1] if tokens[place] != _END else _END
        if _is_identifier(token):
            values.add(token)
            if after not in (",", ")"):
                raise _bad(f"found '{after}', expected: ',' or ')'")
        elif token == ",":
            if not values or after in (",", ")"):
                values.add("")
        else:
            raise _bad(f"found '{token}', expected: ',', or identifier")
        place += 1
        if after == ")":
            return values, place + 1


def _is_identifier(token: str) -> bool:
    return token != _END and token not in _SYMBOLS


def _key_errors(key: str) -> list[str]:
    """What is wrong with a label's name: apimachinery calls a right one a qualified name."""
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        return [
            f"a valid label key {_NAME_ERROR} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    errors = []
    if slash and not prefix:
        errors.append("prefix part must be non-empty")
    elif slash:
        if _bytes(prefix) > PREFIX_BYTES_MAX:
            errors.append(f"prefix part must be no more than {PREFIX_BYTES_MAX} bytes")
        if not all(map(_DNS_LABEL.fullmatch, prefix.split("."))):
            errors.append(f"prefix part {_PREFIX_ERROR}")
    if not name:
        errors.append("name part must be non-empty")
    elif _bytes(name) > NAME_BYTES_MAX:
        errors.append(f"name part must be no more than {NAME_BYTES_MAX} bytes")
    if not _NAME.fullmatch(name):
        errors.append(f"name part {_NAME_ERROR}")
    return errors


def _check_values(key: str, operator: str, values: tuple[str, ...]) -> None:
    errors = []
    if operator in ("gt", "lt") and _integer(values[0]) is None:
        errors.append(f"values[0]: Invalid value: {quoted(values[0])}: {_INTEGER_ERROR}")
    for place, value in enumerate(values):
        wrong = []
        if _bytes(value) > NAME_BYTES_MAX:
            wrong.append(f"must be no more than {NAME_BYTES_MAX} bytes")
        if value and not _NAME.fullmatch(value):
            wrong.append(_VALUE_ERROR)
        if wrong:
            head = f"values[{place}][{key}]: Invalid value: {quoted(value)}"
            errors.append(f"{head}: {'; '.join(wrong)}")
        if len(errors) >= BAD_VALUES_MAX:
            break
    if errors:
        raise _bad(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")


def _test(one: LabelRequirement) -> Callable[[str | None], bool]:
    """The requirement as a test of the label's value; None is a label that isn't there."""
    if one.operator == "exists":
        return lambda value: value is not None
    if one.operator == "!":
        return lambda value: value is None
    values: frozenset[str | None] = frozenset(one.values)
    if one.operator in ("in", "=", "=="):
        return values.__contains__
    if one.operator in ("notin", "!="):
        return lambda value: value not in values
    bound = _integer(one.values[0])
    assert bound is not None, one
    greater = one.operator == "gt"

    def compare(value: str | None) -> bool:
        number = None if value is None else _integer(value)
        return number is not None and (number > bound if greater else number < bound)

    return compare


def _value_of(pairs: tuple[str, ...], key: str) -> str | None:
    """The value of label `key`, which stands somewhere in `pairs`, maybe only as a value."""
    place = pairs.index(key)
    while place % 2:
        if key not in pairs[place + 1 :: 2]:
            return None
        place += 1 + 2 * pairs[place + 1 :: 2].index(key)
    return pairs[place + 1]


def _integer(text: str) -> int | None:
    """The signed 64-bit number that `text` spells in decimal (Go's ParseInt), or None."""
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("+-").lstrip("0")
    if len(digits) > 19:  # before int(), which refuses or labours at long texts
        return None
    number = int(digits or "0") * (-1 if text[0] == "-" else 1)
    return number if -(2**63) <= number < 2**63 else None


def _raw(text: str) -> bytes:
    """UTF-8; what a lenient decoder kept as a lone surrogate is the byte it stood for."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(_raw(text))


def _bad(message: str) -> BadRequest:
    """The error with a message that can be sent as UTF-8."""
    return BadRequest(_SURROGATE.sub("\ufffd", message))
