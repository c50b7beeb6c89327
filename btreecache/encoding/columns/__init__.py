"""Columns: what a table of a resource shows, and how each of its objects fills a row.

The columns and cells are those of a current API server (the cells of 1.20 differ in three places,
which tests/encoding/test_columns.py names), with descriptions of our own: no client reads them.
Custom resources have the columns that their definition declares. Without an entry here, and without
a declared column, there are Name and Age.
"""

from __future__ import annotations

from btreecache.encoding.columns.core import CORE
from btreecache.encoding.columns.declared import declared
from btreecache.encoding.columns.definition import (
    AGE,
    NAME,
    Cell,
    Column,
    Columns,
    Registry,
)
from btreecache.encoding.columns.others import OTHERS
from btreecache.encoding.columns.pods import PODS
from btreecache.encoding.columns.shape import Object
from btreecache.encoding.columns.words import age, human_duration, name_of
from btreecache.encoding.columns.workloads import WORKLOADS
from btreecache.resources import Resource

__all__ = ["Cell", "Column", "Columns", "Object", "columns_of", "human_duration"]

#: Every resource with columns of its own.
COLUMNS: Registry = {**CORE, **PODS, **WORKLOADS, **OTHERS}


def _name_and_age(one: Object, now_s: float) -> list[Cell]:
    return [name_of(one), age(one, now_s)]


_DEFAULT = Columns((NAME, Column(AGE.name, AGE.description, type="date")), _name_and_age, ())


def columns_of(resource: Resource, version: str = "") -> Columns:
    """The columns of a resource in a version of its group; Name and Age where it has none of its
    own. O(1)."""
    if resource.custom is not None:
        columns = resource.custom.columns_of(version)
        return declared(columns) if columns else _DEFAULT
    return COLUMNS.get((resource.group, resource.plural), _DEFAULT)
