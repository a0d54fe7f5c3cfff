"""What the archive knows of a table whose new rows are events: one small file in the site's state.

Nothing that a restore needs. Without it, the rows that are there then are taken for known.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from portfolio_ops.errors import RefusedError
from portfolio_ops.host.files import write_atomically
from portfolio_ops.sqlite.rows import Mark

_FILE = "galleries.json"
_VERSION = 1

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Batch:
    """Rows that are one event.

    Attributes:
        request: 16 hex digits. They stand in the backup that is made for it, so it is made once.
        first, last: Their rowids' range.
        names: In order, the first 100.
        more: Whether there are others.
        name: The last one's.
        before: The last moment at which none of them was there, RFC 3339; empty if that is not known.
    """

    request: str
    first: int
    last: int
    names: tuple[str, ...]
    more: bool
    name: str
    before: str


@dataclass(frozen=True)
class Sightings:
    """All that is remembered.

    Attributes:
        inode: The database file's. Its device is not asked: that number may change when the host boots.
        table, column: What was looked at.
        marks: The rows that are known, greatest rowid first.
        waiting: Rows whose backup has not begun; more may join them.
        begun: Rows whose backup has begun, and may be there.
    """

    inode: int
    table: str
    column: str
    marks: tuple[Mark, ...]
    waiting: Batch | None = None
    begun: Batch | None = None


def read(state: Path) -> Sightings | None:
    """What is remembered; None where nothing is.

    Raises:
        RefusedError: The file is damaged.
        OSError: It cannot be read.
    """
    path = state / _FILE
    try:
        return _parsed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"{path} is damaged ({error!r})") from error


def _parsed(document: dict[str, Any]) -> Sightings:
    if document.pop("version") != _VERSION:
        raise ValueError("another version")
    marks = tuple(Mark(_a(int, rowid), _a(str, digest)) for rowid, digest in document.pop("marks"))
    waiting, begun = _batch(document.pop("waiting")), _batch(document.pop("begun"))
    inode, table, column = (
        _a(int, document.pop("inode")),
        _a(str, document.pop("table")),
        _a(str, document.pop("column")),
    )
    if document or list(marks) != sorted(marks, key=lambda mark: -mark.rowid):
        raise ValueError("more than there should be, or out of order")
    return Sightings(inode, table, column, marks, waiting, begun)


def write(state: Path, sightings: Sightings) -> None:
    """Remember, durably.

    Raises:
        OSError: It cannot be written; what was remembered before still is.
    """
    document = asdict(sightings) | {"version": _VERSION}
    document["marks"] = [[mark.rowid, mark.digest] for mark in sightings.marks]
    write_atomically(state / _FILE, json.dumps(document).encode())


def _batch(document: dict[str, Any] | None) -> Batch | None:
    if document is None:
        return None
    batch = Batch(**document | {"names": tuple(_a(str, name) for name in document["names"])})
    for value in (batch.request, batch.name, batch.before):
        _a(str, value)
    _a(int, batch.first), _a(int, batch.last), _a(bool, batch.more)
    return batch


def _a(kind: type[_Item], value: object) -> _Item:
    """A value, if it is of that very kind (a bool is an int to isinstance)."""
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
