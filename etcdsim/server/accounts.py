"""Accounts: users and roles, as data that nobody is asked to prove."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Accounts:
    """The users and roles of a member. `revision`: every change adds one."""

    users: dict[str, list[str]] = field(default_factory=dict)  # name -> roles, sorted
    roles: dict[str, list[Any]] = field(default_factory=dict)  # name -> permissions, by key
    revision: int = 1
