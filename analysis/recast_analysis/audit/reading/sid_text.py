"""Semantic IDs in text: `<a_12><b_3><c_4>`, or `<s_a_12><s_b_3><s_c_4>` as OpenOneRec writes them; and which of them exist.

Levels are told by their letters, whatever stands between the tokens: nothing, blanks, line ends or commas, as the tokenizer had
it. A response's SID are its first tokens, after the thought where there is one, up to one that is no deeper than the one
before. It is malformed where it has another number of levels than the others, or levels out of order.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recast_analysis.audit.audit_error import AuditError
from recast_sim.bounded import MEGABYTE, each_key_once, read_bounded
from recast_sim.runs.table_files import no_utf8

_TOKEN = r"<(?:s_)?[a-z]_[0-9]+>"
_OTHER = r"(?:[<\[({|]+[A-Za-z_]+[-_ ]?[0-9]+[>\])}|]+[ ,\n]*){2,}"  # what may be an SID in another notation
_THOUGHT = r"(?s)^.*</think>"
_ITEM_BYTES = 1024 * MEGABYTE  # of a list of items
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class SidRules:
    """What a well-formed SID looks like here.

    Attributes:
        levels: tokens of an SID.
        source: where `levels` comes from, in words.
        thought: whether responses hold a thought that ends in `</think>`.
        items: the SIDs that exist, in the responses' own notation; None where no `--items` says so.
    """

    levels: int
    source: str
    thought: bool
    items: pl.Series | None = None

    def faults(self, text: pl.Expr) -> dict[str, pl.Expr]:
        """Boolean expressions by name: `sid_missing`, `sid_malformed`, and `sid_unknown` where the items are known."""
        text = text.str.replace(_THOUGHT, "") if self.thought else text
        tokens = text.str.extract_all(_TOKEN).list.join("")
        formed = tokens.str.contains(_formed(self.levels))
        found = {"sid_missing": tokens == "", "sid_malformed": (tokens != "") & ~formed}
        if self.items is not None:
            found["sid_unknown"] = formed & ~tokens.str.extract(_formed(self.levels)).is_in(self.items.implode())
        return {name: fault.fill_null(False) for name, fault in found.items()}


def find_rules(texts: Iterable[str], items: Path | None) -> SidRules | None:
    """The rules for responses of which these are some; None where none of them holds an SID.

    Raises:
        AuditError: an items file that cannot be used, or one for responses without SIDs.
    """
    texts = list(texts)
    sids = [sid for text in texts if (sid := _first_sid(re.sub(_THOUGHT, "", text)))]
    if not sids:
        if items is not None:
            raise AuditError(f"items: {items} given, but none of the first {len(texts)} responses holds an SID; leave it out")
        return None
    thought = any("</think>" in text for text in texts)
    if items is None:
        (levels, _), *_ = Counter(map(len, sids)).most_common(1)
        return SidRules(levels, f"the most common number among the first {len(texts):,} responses", thought)
    known = _read_items(items)
    if sids[0][0].startswith("<s_") != known[0].startswith("<s_"):
        raise AuditError(
            f"{items}: SIDs such as {known[0]}, but the responses hold such as {''.join(sids[0])}; write both alike"
        )
    return SidRules(known[0].count("<"), f"the items in {items.name}", thought, pl.Series(known))


def unread_sid(texts: Iterable[str]) -> str | None:
    """What most of these responses hold that looks like an SID in a notation that is not read here: the first of it."""
    texts = list(texts)
    found = [match[0].strip(" ,\n") for text in texts if (match := re.search(_OTHER, text)) and not re.search(_TOKEN, text)]
    return found[0] if 2 * len(found) > len(texts) else None


def _first_sid(text: str) -> list[str]:
    """Tokens of ever deeper levels, from the first one on."""
    tokens = re.findall(_TOKEN, text)
    letters = [token.removeprefix("<s_").removeprefix("<")[0] for token in tokens]
    ends = (place for place in range(1, len(tokens)) if letters[place] <= letters[place - 1])
    return tokens[: next(ends, len(tokens))]


def _formed(levels: int) -> str:
    """Tokens joined: one of each level in order, and none that is deeper behind them."""
    deepest = _LETTERS[levels - 1]
    return "^(" + "".join(f"<(?:s_)?{letter}_[0-9]+>" for letter in _LETTERS[:levels]) + f")(?:$|<(?:s_)?[a-{deepest}]_)"


def _read_items(path: Path) -> list[str]:
    """SIDs from a JSON object of item to SID (a string, or a list of its tokens: MiniOneRec's index.json), or one a line."""
    try:
        content = read_bounded(path, _ITEM_BYTES, AuditError)
        if found := no_utf8(content):
            raise AuditError(f"{path}: {found}")
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise AuditError(f"{path}: line {text[: text.index(chr(0))].count(chr(10)) + 1}: holds a NUL; fetch it again")
        rows: list[tuple[str, Any]]
        if text.lstrip().startswith("{"):
            rows = [(f"item {item!r}", sid) for item, sid in json.loads(text, object_pairs_hook=each_key_once).items()]
        else:
            rows = [(f"line {n}", line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    except AuditError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise AuditError(
            f"{path}: not readable as items: {error}; give a JSON object of item to SID, or an SID a line"
        ) from error
    if not rows:
        raise AuditError(f"{path}: holds no items; give a JSON object of item to SID, or an SID a line")
    sids: list[str] = []
    for where, value in rows:
        text = "".join(map(str, value)) if isinstance(value, list) else str(value)
        sid = "".join(re.findall(_TOKEN, text))
        levels = sids[0].count("<") if sids else len(_first_sid(text))
        if (
            not levels
            or sid.count("<") != levels
            or not re.match(_formed(levels), sid)
            or re.search(r"\w", re.sub(_TOKEN, "", text))
        ):
            wanted = f"an SID of {levels} levels" if sids else "an SID"
            raise AuditError(f"{path}: {where}: found {value!r}; write {wanted}, such as <a_12><b_3><c_4>")
        sids.append(sid)
    return sids
