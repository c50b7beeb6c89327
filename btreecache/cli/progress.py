"""A progress bar on a terminal, nothing elsewhere. Uses rich where it is installed: extra `cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Call with how much was done in all so far.
Advance = Callable[[int], object]


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A bar on stderr while the body runs, gone afterwards."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield lambda done: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)
