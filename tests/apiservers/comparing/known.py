"""Every difference that there may be. `docs/clients.md` has the argument for each by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.apiservers.comparing.questions import Question
from tests.apiservers.servers import EXTENSIONS, KUBE


@dataclass(frozen=True)
class Known:
    """A difference. `place`, `question`: regular expressions that are searched for in what
    `differences` says, and in the question as text; `server`: of which it is, "" of both."""

    name: str
    place: str
    question: str = ""
    server: str = ""

    def covers(self, server: str, question: Question, said: str) -> bool:
        return bool(
            server.startswith(self.server)
            and re.search(self.question, str(question), re.DOTALL)
            and re.search(self.place, said, re.DOTALL)
        )


KNOWN = (
    Known("stored-version", r"doesn.{1,2}t convert it"),
    Known("table-text", r"^\.(object\.)?columnDefinitions\[\]\.description:"),
    Known("bad-revision", r"^status: 500 .* != 400 .*invalid resource version"),
    Known("unknown-path", r"^(kinds: 1 (bytes '404 '|None)|content-type: text/plain)", "^odd path"),
    Known("own-groups", r"^status: 404 .* != 200 ", "^document", EXTENSIONS),
    Known(
        "not-acceptable",
        r"^kinds: 1 .*406: Not Acc.* != 1 Status 406 |only the foll.*only the foll",
    ),
    Known("wildcard", r"^status: 406 .*406: Not Acceptable", r"Accept: application/\*"),
    Known("not-a-list", r"^status: 500 .* != 406 .*not a list$", "^get"),
    Known("window", r"^kinds: .*too old resource version", "^watch"),
    Known("null-or-empty", r"^\.(items|rows): None != \[\]$"),
    Known("any-revision", r"^\.metadata\.resourceVersion: ", r"^list: .*resourceVersion=\d"),
    Known("empty-last-page", r"^pages: ", "^chain: .*labelSelector"),
    Known("two-mistakes", r"^kinds: 1 Status 400 .* != 1 Status 400 .*includeObject", "Selector"),
    Known("bookmark-object", r"^\.object\.(spec|status): .* != absent$", "^watch.*sendInitial"),
    Known("1.20-singular-name", r"^\.singularName: '' != ", "^document", KUBE),
    Known("1.20-remaining", r"^\.metadata\.remainingItemCount: absent != ", "PartialObject", KUBE),
    Known(
        "1.20-restarts", r"columnDefinitions\[\]\.type: 'integer'|cells\[\]: 0 != '0'", "pods", KUBE
    ),
    Known("1.20-cache-revision", r"^status: 504 ", r"resourceVersion=\d+", KUBE),
    Known("1.20-cache-revision", r"^\.metadata\.resourceVersion: ", r"resourceVersion=\d+", KUBE),
    Known("1.20-cache-revision", r"^: b'k8s", r"resourceVersion=\d+.*protobuf", KUBE),
    Known("1.20-order", r"^order: another one$", "resourceVersion=|watch", KUBE),
    Known("1.20-order", r"^\.object\.columnDefinitions: ", "^watch", KUBE),
    Known("1.20-watch-list", r"sendInitialEvents|forbidden for watch", "", KUBE),
    Known("1.20-watch-list", r"^kinds: .*BOOKMARK|^kinds: .* != nothing", "^watch", KUBE),
    Known("1.20-null-time", r"creationTimestamp: None != absent$", "deployments", KUBE),
    Known("1.20-words", r"^kinds: 1 Status (\d+) .* != 1 Status \1 ", "", KUBE),
    Known("1.20-words", r"^kinds: 1 bytes 'Status .* != 1 bytes 'Status ", "", KUBE),
)


def name_of(server: str, question: Question, said: str) -> str | None:
    """The name of the first listed difference that it is; None: it isn't listed."""
    return next((one.name for one in KNOWN if one.covers(server, question, said)), None)
