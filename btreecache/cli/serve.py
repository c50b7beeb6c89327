"""`btreecache serve`: a read-only Kubernetes API over caches that follow an etcd or the simulator.

The first line on stdout is the server's URL, once it answers. SIGTERM and Ctrl-C end it: watches
end, answers under way are finished.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

from btreecache.cli import arguments, entrance, limits, logs, origin, retention
from btreecache.errors import BadRequest, MissingExtra
from btreecache.features import Features
from btreecache.resources import Resource, Resources, parse_resource

if TYPE_CHECKING:
    from btreecache.archive import Archive

PREFIX = b"/registry"

#: --sim: revisions a second; and the profile that people look at, so that ages should be right.
#: Of all others a seed says everything, times too.
WRITES = 10
SHOWN = "cluster"


def add_parser(commands: Any) -> None:
    """Declare the command and its flags."""
    parser = commands.add_parser(
        "serve",
        help="serve lists and watches over HTTP, as a Kubernetes API server does",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    origin.add_flags(parser, verb="serve", writes=WRITES)
    entrance.add_flags(parser)
    limits.add_flags(parser)
    logs.add_flags(parser)
    parser.add_argument(
        "--prefix", type=arguments.key_bytes, default=PREFIX,
        help="where the keys of an API server begin (default /registry)",
    )  # fmt: skip
    parser.add_argument(
        "--resource", action="append", default=[],
        metavar="[GROUP/]VERSION/PLURAL:KIND[:namespaced][=PREFIX]",
        help="serve this resource too, or a built-in one from another place; followed from the"
        " start; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--no-crds", action="store_true",
        help="--etcd: don't serve the custom resources that its CustomResourceDefinitions define",
    )  # fmt: skip
    parser.add_argument(
        "--warm", action="append", default=[], metavar="NAME[,..]",
        help="follow these from the start (pods, deployments.apps, ..), others when they are first"
        " asked for; /readyz waits for them",
    )  # fmt: skip
    parser.add_argument(
        "--history", choices=("source", "window"),
        help="source: forget what the source has compacted (default); window: keep 5 minutes",
    )  # fmt: skip
    parser.add_argument(
        "--archive", metavar="URI",
        help="write history down in this file, zeo:// or postgresql://, begin with what it holds,"
        " and serve revisions that neither the source nor the window has any more",
    )  # fmt: skip
    retention.add_flags(parser, "--archive: forget")
    parser.add_argument(
        "--serve-as", choices=("json", "protobuf"),
        help="convert objects to this form as they come in, for clients that ask for nothing else;"
        " else each is converted when it is first asked for",
    )  # fmt: skip
    parser.add_argument(
        "--feature-gates", default="", metavar="GATE=true|false[,..]",
        help="see `btreecache features`",
    )  # fmt: skip
    parser.add_argument(
        "--shutdown-delay", type=arguments.duration_s, default=0.0, metavar="DURATION",
        help="go on serving for so long after a signal, while /readyz says that it is the end",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def run(options: argparse.Namespace) -> int:
    """Serve as asked until a signal; the exit code."""
    try:
        from btreecache.codec.serve_as import serve_as
        from btreecache.server import listening
        from btreecache.server.caches import Caches, served
        from btreecache.server.request_log import RequestLog
    except ImportError as error:
        raise MissingExtra("serve", error.name or "starlette") from None
    if retention.is_named(options) and not options.archive:
        raise BadRequest("--keep-age, --keep-revisions, --keep-bytes and --thin need --archive")
    if options.archive and options.history:
        raise BadRequest("--history is of a server without --archive, which keeps its own")
    features = Features.parse(options.feature_gates)
    configured = [parse_resource(text) for text in options.resource]
    secrets = options.allow_secrets
    resources = served(configured, root=options.prefix, allow_secrets=secrets)
    at_start = [*configured, *_named(options.warm, resources)]
    host, port, guarded = entrance.named(options)
    with ExitStack() as stack:
        stack.enter_context(logs.levels(options))
        clock = time.time if options.sim == SHOWN else None
        source = stack.enter_context(origin.opened(options, writes=WRITES, wall_s=clock))
        sock = stack.enter_context(listening.bind(host, port))
        archive = stack.enter_context(_opened(options)) if options.archive else None
        if archive:
            prefixes = {*archive.prefixes()}  # What was followed before is followed again.
            at_start += [one for one in resources.all if one.prefix(options.prefix) in prefixes]
        url = listening.address(sock, tls=guarded.certificate is not None)
        caches = Caches(
            source, resources, root=options.prefix, at_start=at_start,
            features=features, history=options.history or "source", rng=Random(),
            allow_secrets=secrets,
            follows_definitions=bool(options.etcd) and not options.no_crds,
            archive=archive.history if archive else None,
            transform=serve_as(options.serve_as) if options.serve_as else None,
        )  # fmt: skip
        print(f"try: kubectl --server {url} get pods -A", file=sys.stderr)
        listening.serve(
            caches, sock, lambda: print(url, flush=True), guarded, limits.lists(options),
            RequestLog(every=options.log_requests),
            connections=limits.connections(options), shutdown_delay_s=options.shutdown_delay,
        )  # fmt: skip
    return 0


def _opened(options: argparse.Namespace) -> Archive:
    """The archive of --archive, to be written. Raises BadRequest, MissingExtra, ArchiveError."""
    from btreecache.archive import Archive

    return Archive.open(options.archive, retention=retention.named(options))


def _named(texts: list[str], resources: Resources) -> Iterator[Resource]:
    """What --warm names. Raises BadRequest."""
    for name in (name for text in texts for name in text.split(",") if name):
        resource = resources.named(name)
        if resource is None:
            raise BadRequest(f"--warm: there is no resource {name!r}")
        yield resource
