"""Which column of a table is the user, the item, the time and the title: by the names that public data sets give them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recast_sim.configio import Checked
from recast_train.data.data_error import DataError

ROLES = ("user", "item", "timestamp")
_OWN = {"user": ("user", "userid"), "item": ("item", "itemid"), "timestamp": ("timestamp",), "title": ("title",)}
_NAMES = {
    "user": "uid useridx reviewerid session sessionid visitorid customerid buyerid accountid",
    "item": "iid itemidx product productid movie movieid asin parentasin trackid songid artistid businessid bookid newsid"
    " videoid poiid venueid",
    "timestamp": "time ts date datetime unixtime unixreviewtime reviewtime eventtime createdat timestampms",
    "title": "movietitle itemtitle producttitle name itemname productname",
}
# what may stand where a time might
_NO_TIMES = {"rating", "ratings", "label", "score", "stars", "overall", "weight", "count"}


@dataclass(frozen=True)
class TableColumns(Checked, error=DataError):
    """Names of a table's columns, or their places from 1 where it has no header.

    Attributes:
        user, item: default the one with a known name (user_id, session_id, reviewerID; item_id, product_id, asin, movieId).
        timestamp: the same (time, date, unixReviewTime); "" for a table without one: the order of its rows is the time.
        title: of a table of titles, the same (title, movie_title, name).
    """

    user: str | None = None
    item: str | None = None
    timestamp: str | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in (self.user, self.item, self.timestamp) if name is not None]
        if self.user == "" or self.item == "" or len(set(given)) < len(given):
            raise DataError(f"TableColumns: {self} must name different columns, and a user and an item; fix the names")

    @property
    def by_place(self) -> bool:
        """User and item are given as places."""
        return all(name is not None and re.fullmatch("[1-9][0-9]?", name) for name in (self.user, self.item))


def find_columns(where: str, names: Sequence[str], columns: TableColumns, wanted: Sequence[str] = ROLES) -> dict[str, int]:
    """Place of each wanted role's column among `names`; a time may be missing, by "" or where nothing else could be one.

    Raises:
        DataError: a given name that is not there once, a role that no column or several may have.
    """
    found: dict[str, int] = {}
    for role in wanted:
        name = getattr(columns, role)
        if name == "":
            continue
        places = [place for place, one in enumerate(names) if one == name] if name else candidates(names, role)
        if name and len(places) != 1:
            raise DataError(f"{where}: column {name!r} is there {len(places)} times in {list(names)}; name it so once")
        if len(places) > 1:
            several = " and ".join(repr(names[place]) for place in places)
            raise DataError(f"{where}: {several} may both be the column of the {role}; say which by columns.{role}")
        if places:
            found[role] = places[0]
        elif role != "timestamp":
            raise DataError(f"{where}: no column of the {role} by its name in {list(names)}; say which by columns.{role}")
    if "timestamp" in wanted and "timestamp" not in found and columns.timestamp is None:
        _refuse_unknown(where, names, found)
    return found


def candidates(names: Sequence[str], role: str) -> list[int]:
    """Places of the columns that have a known name of a role; the plainest name wins over the others."""
    plain = [_plain(name) for name in names]
    own = [place for place, name in enumerate(plain) if name in _OWN[role]]
    return own or [place for place, name in enumerate(plain) if name in _NAMES[role].split()]


def is_header(cells: Sequence[str]) -> bool:
    """Whether a cell is a known name of a user, an item or a time: no id is called so."""
    return any(candidates(cells, role) for role in ROLES)


def _refuse_unknown(where: str, names: Sequence[str], found: Mapping[str, int]) -> None:
    rest = [name for place, name in enumerate(names) if place not in found.values() and _plain(name) not in _NO_TIMES]
    if rest:
        mend = "say which by columns.timestamp, or give it '' where the rows of a user are in the order of time"
        raise DataError(f"{where}: no column of the timestamp by its name, and {rest} might be it; {mend}")


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def place_of(path: Path, name: str, width: int) -> int:
    """A place from 1, as users write it, from 0. Raises DataError beyond the width."""
    if not re.fullmatch("[1-9][0-9]?", name) or int(name) > width:
        raise DataError(f"{path}: line 1: no column {name!r}; without a header they have places from 1 to {width}")
    return int(name) - 1
