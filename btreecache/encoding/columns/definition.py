"""What the columns of a resource are, and how its objects fill them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from btreecache.encoding.columns.shape import Object

#: A cell: a string, or a number or truth value where the column's type says so.
Cell = str | int | float | bool

#: From an object and the time in seconds since 1970 to one cell for every column; None: empty,
#: which only columns that a definition declares may be.
Cells = Callable[[Object, float], Sequence[Cell | None]]

#: A member that every column set reads.
METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Column:
    """A TableColumnDefinition.

    type       of the cells: string, integer, boolean or date
    format     `name` for the column that names the object
    priority   0: always shown; 1: shown when there is room (kubectl's `-o wide`)
    """

    name: str
    description: str
    type: str = "string"
    format: str = ""
    priority: int = 0

    def members(self) -> dict[str, object]:
        """As in a Table, in the order of the wire."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one resource.

    cells        what an object shows in them. Never raises, whatever the object holds.
    reads        the members of an object that `cells` looks at; of its metadata name, times, labels
                 and annotations are there anyway, and all of it if it is named here
    completed    why an object has reached its end and kubectl may hide it; "" if it has not
    """

    columns: tuple[Column, ...]
    cells: Cells
    reads: tuple[str, ...] = ("spec", "status")
    completed: Callable[[Object], str] | None = None


#: Column sets by group and plural.
Registry = Mapping[tuple[str, str], Columns]

NAME = Column("Name", "What the object is called.", format="name")
AGE = Column("Age", "Time since the object was created.")
CONTAINERS = Column("Containers", "Names of the containers that are started.", priority=1)
IMAGES = Column("Images", "Images of the containers that are started.", priority=1)
SELECTOR = Column("Selector", "Which pods belong to the object, by their labels.", priority=1)


def wide(name: str, description: str) -> Column:
    """A column of strings that is shown when there is room."""
    return Column(name, description, priority=1)


def integer(name: str, description: str) -> Column:
    """A column of numbers."""
    return Column(name, description, type="integer")
