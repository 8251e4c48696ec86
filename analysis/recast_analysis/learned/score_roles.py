"""Which column of a score file says what: by its name, or by `--columns ROLE=COLUMN`.

| role | default columns | value |
|---|---|---|
| prompt | prompt_id, prompt; input and output beside predict | text or whole number; several columns joined by + are one id |
| user | user | the same; prompts of one user are alike, so users are what intervals count |
| rank | rank | place of the target in the beam from 1, empty where it is not in it |
| ranked | ranked, predict | list of items, best first |
| target | target; output beside ranked | an item, or a list of them; without `ranked` its place in `scores`, from 0 |
| scores | scores | list of log-probabilities or logits, one for each item of `ranked` |
| logprob | logprob; logprob_1, logprob_2, ... | log-probability of the target, nats; a list or columns joined by +: by level |
| greedy | greedy | 1 or true where the greedy item is the target |
| entropy | entropy | of the distribution over items, nats |
| level_scores | level_scores | for each level the scores of the children of the target's parent: a list of lists |
| level_target | level_target | for each level the place of the target's own child among them, from 0 |
"""

from collections.abc import Sequence
from pathlib import Path

from recast_analysis.learned.learned_error import LearnedError

ROLES = (
    *("prompt", "user", "rank", "ranked", "target", "scores", "logprob"),
    *("greedy", "entropy", "level_scores", "level_target"),
)
_NAMES = {"prompt": ("prompt_id", "prompt"), "ranked": ("ranked", "predict"), "target": ("target", "output")}
_JOINED = ("prompt", "logprob")
_SCORES = ("rank", "ranked", "scores", "logprob", "greedy", "level_scores")
Roles = dict[str, tuple[str, ...]]  # the columns of each role


def find_roles(path: Path, columns: Sequence[str], given: dict[str, str], by_row: bool) -> Roles:
    """The columns of each role that a file has.

    Raises:
        LearnedError: a named column is not there, no column of prompts (unless `by_row`), or nothing that is a score.
    """
    found: Roles = {}
    for role in ROLES:
        if role in given:
            found[role] = _named(path, columns, role, given[role])
        elif role == "prompt" and {"input", "output", "predict"} <= set(columns) and "prompt_id" not in columns:
            found[role] = ("input", "output")
        else:
            found |= dict.fromkeys([role], tuple(name for name in _NAMES.get(role, (role,)) if name in columns)[:1])
    found = {role: names for role, names in found.items() if names}
    if "ranked" not in found and "target" not in given and found.get("target") == ("output",):
        del found["target"]  # what the model answered, in verl's dumps
    levels = [f"logprob_{level}" for level in range(1, len(columns) + 1)]
    if "logprob" not in found and levels[0] in columns:
        found["logprob"] = tuple(name for place, name in enumerate(levels) if set(levels[: place + 1]) <= set(columns))
    if "prompt" not in found and not by_row:
        raise LearnedError(
            f"{path}: no column of prompt ids among {sorted(columns)}; name it with --columns prompt=COLUMN, or give --by-row "
            "where all files list the same prompts in the same order"
        )
    if not set(found) & set(_SCORES):
        raise LearnedError(f"{path}: no scores among {sorted(columns)}; name a column of {', '.join(_SCORES)} by --columns")
    _check_pairs(path, found)
    return found


def _named(path: Path, columns: Sequence[str], role: str, name: str) -> tuple[str, ...]:
    names = (name,) if name in columns or role not in _JOINED else tuple(name.split("+"))
    for one in names:
        if one not in columns:
            raise LearnedError(f"{path}: no column {one!r} (for {role}) among {sorted(columns)}; fix --columns {role}=")
    return names


def _check_pairs(path: Path, found: Roles) -> None:
    for role, partner in (("ranked", "target"), ("scores", "target"), ("level_scores", "level_target")):
        if role in found and partner not in found:
            raise LearnedError(f"{path}: {role} says nothing without {partner}; name its column with --columns {partner}=")
