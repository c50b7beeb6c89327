"""Every mutant is caught by its check, and the check passes without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.mutants import archive, reads  # noqa: F401  (register their mutants)
from tests.mutants.mutants import MUTANTS, Mutant

CHECKS = sorted({mutant.check for mutant in MUTANTS}, key=lambda check: check.__name__)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_check_passes_without_a_mutant(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.check.__name__}"
)
def test_the_mutant_is_caught(mutant: Mutant) -> None:
    """By the assertion that is meant for it: a mutant that only crashes proves nothing."""
    with mutant.at_large(), pytest.raises(AssertionError, match=mutant.says):
        mutant.check()
