"""What a check found: as one JSON object, as JUnit XML, or as text for a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from btreecache.cli.printing import bytes_member
from btreecache.consistency import DIFFERENCES_MAX, Difference, Round, Verdict
from btreecache.errors import FeedFault

EXIT_CODES: Mapping[Verdict, int] = {"consistent": 0, "inconsistent": 1, "unknown": 3}

#: Differences and feed faults that the text shows; JSON has up to DIFFERENCES_MAX.
SHOWN_MAX = 10


@dataclass(slots=True)
class Report:
    """Every round of one run, in order, with how long each took in seconds."""

    source: str
    seed: int
    rounds: list[tuple[Round, float]] = field(default_factory=list)
    faults_injected: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Any inconsistent round makes the run inconsistent, else any unknown one unknown."""
        verdicts = [outcome.verdict for outcome, _ in self.rounds]
        if "inconsistent" in verdicts:
            return "inconsistent"
        return "unknown" if "unknown" in verdicts or not verdicts else "consistent"

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def total(self, name: str) -> int:
        return sum(getattr(outcome, name) for outcome, _ in self.rounds)

    def differences(self) -> list[Difference]:
        found = (difference for outcome, _ in self.rounds for difference in outcome.differences)
        return [difference for difference, _ in zip(found, range(DIFFERENCES_MAX), strict=False)]

    def feed_faults(self) -> list[FeedFault]:
        found = (fault for outcome, _ in self.rounds for fault in outcome.feed_faults)
        return [fault for fault, _ in zip(found, range(DIFFERENCES_MAX), strict=False)]


def as_json(report: Report) -> str:
    """The report as one JSON object on one line."""
    return json.dumps(
        {
            "verdict": report.verdict,
            "source": report.source,
            "seed": report.seed,
            "duration_s": round(report.duration_s, 3),
            "revisions_checked": report.total("revisions_checked"),
            "keys_compared": report.total("keys_compared"),
            "bytes_read": report.total("bytes_read"),
            "not_checkable": report.total("not_checkable"),
            "differences_total": report.total("differences_total"),
            "differences": [_difference(difference) for difference in report.differences()],
            "feed_faults_total": report.total("feed_faults_total"),
            "feed_faults": [_feed_fault(fault) for fault in report.feed_faults()],
            "faults_injected": report.faults_injected,
            "rounds": [_round(outcome, duration_s) for outcome, duration_s in report.rounds],
        }
    )


def _round(outcome: Round, duration_s: float) -> dict[str, Any]:
    return {
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "revision": outcome.revision,
        "revisions_checked": outcome.revisions_checked,
        "keys_compared": outcome.keys_compared,
        "bytes_read": outcome.bytes_read,
        "not_checkable": outcome.not_checkable,
        "differences_total": outcome.differences_total,
        "feed_faults_total": outcome.feed_faults_total,
        "duration_s": round(duration_s, 3),
    }


def _key(key: bytes | None) -> dict[str, str]:
    """`key` where it is text, else `key_base64`; nothing where no single key is meant."""
    return bytes_member("key", key) if key else {}


def _difference(difference: Difference) -> dict[str, Any]:
    return {"revision": difference.revision, **_key(difference.key), "kind": difference.kind}


def _feed_fault(fault: FeedFault) -> dict[str, Any]:
    return {
        "kind": fault.kind,
        "revision": fault.revision,
        "good": fault.good,
        **_key(fault.key),
        "detail": fault.detail,
    }


def as_junit(report: Report) -> str:
    """The report as JUnit XML: a test case a round, a failure if inconsistent, an error if unknown.

    What XML can't hold, control characters in a key or a reason, is written as in Python.
    """
    verdicts = [outcome.verdict for outcome, _ in report.rounds]
    suite = ElementTree.Element(
        "testsuite",
        name="btreecache check",
        tests=str(len(verdicts)),
        failures=str(verdicts.count("inconsistent")),
        errors=str(verdicts.count("unknown")),
        time=f"{report.duration_s:.3f}",
    )
    for index, (outcome, duration_s) in enumerate(report.rounds, 1):
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=report.source,
            name=f"round {index} at revision {outcome.revision}",
            time=f"{duration_s:.3f}",
        )
        if outcome.verdict == "inconsistent":
            found = [*map(str, outcome.feed_faults), *map(_difference_line, outcome.differences)]
            summary = (
                f"{outcome.differences_total} differences, {outcome.feed_faults_total} feed faults"
            )
            failure = ElementTree.SubElement(case, "failure", message=summary)
            failure.text = _printable("\n".join(found))
        elif outcome.verdict == "unknown":
            ElementTree.SubElement(case, "error", message=_printable(outcome.reason))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def as_text(report: Report) -> str:
    """The report for a person: a line a round, what was found, a table, the verdict last."""
    lines = [_round_line(index, *entry) for index, entry in enumerate(report.rounds, 1)]
    lines += _findings("feed fault", report.feed_faults(), report.total("feed_faults_total"))
    found = [_difference_line(difference) for difference in report.differences()]
    lines += _findings("difference", found, report.total("differences_total"))
    injected = ", ".join(f"{name}={count}" for name, count in report.faults_injected.items())
    rows = [
        ("source", report.source),
        ("seed", f"{report.seed}"),
        ("rounds", f"{len(report.rounds):,}"),
        ("revisions checked", f"{report.total('revisions_checked'):,}"),
        ("keys compared", f"{report.total('keys_compared'):,}"),
        ("read from the truth", f"{report.total('bytes_read'):,} bytes"),
        ("not checkable", f"{report.total('not_checkable'):,}"),
        ("differences", f"{report.total('differences_total'):,}"),
        ("feed faults", f"{report.total('feed_faults_total'):,}"),
        *([("faults injected", injected)] if injected else []),
        ("duration", f"{report.duration_s:.1f} s"),
        ("verdict", report.verdict),
    ]
    return "\n".join([*lines, *table(rows)])


def _round_line(index: int, outcome: Round, duration_s: float) -> str:
    reason = f" ({outcome.reason})" if outcome.reason else ""
    return (
        f"round {index}: {outcome.verdict}{reason} at revision {outcome.revision}: "
        f"{outcome.revisions_checked:,} revisions, {outcome.keys_compared:,} keys, "
        f"{duration_s:.1f} s"
    )


def _difference_line(difference: Difference) -> str:
    where = repr(difference.key)[1:] if difference.key else "the whole prefix"
    return f"{difference.kind} at revision {difference.revision}: {where}"


def _findings(name: str, found: Iterable[object], total: int) -> list[str]:
    shown = [f"{name}: {item}" for item, _ in zip(found, range(SHOWN_MAX), strict=False)]
    more = total - len(shown)
    return [*shown, f"{name}: {more:,} more"] if more > 0 else shown


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns, the first padded."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


#: How `--output` names them.
FORMATS: Mapping[str, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
}
