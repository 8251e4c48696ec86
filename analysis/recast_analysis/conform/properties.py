"""Facts that hold of every method's advantages or losses, whatever its choices."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from recast_analysis.conform.cases import Case
from recast_analysis.conform.formula import local
from recast_analysis.conform.judged_target import Target, call

HIT_RATES = (0.02, 0.1, 0.5)
WIDTH = 8  # of the closed form's groups
BATCHES = (  # of which a formula gets the first that it says something of
    Case("", "", [0.5, -1.25, 2.0, 0.0, 1.0, 0.0, 0.0, -0.5, 3.0], [0, 0, 0, 0, 1, 1, 1, 2, 2]),
    Case("", "", [0.5, 0.0, 1.0, 0.25, 0.8, 0.0, 0.4, 0.25, 1.0], [0, 0, 0, 0, 1, 1, 1, 1, 1]),
    Case("", "", [1.0, 0.0, 0.5, 0.25, 0.0, 1.0], [0, 0, 1, 1, 2, 2]),
)
Check = tuple[str, str]
Arguments = Callable[[], tuple[Any, ...]]


def broken_properties(target: Target, formula: Any, setting: Mapping[str, str]) -> Iterator[Check]:
    """Name and words of each property that the target breaks; none where it cannot answer the batch at all."""
    batch = next((case for case in BATCHES if formula.covers(case)), BATCHES[0])
    arguments, answers = (batch.arguments, batch.answers) if target.kind == "advantages" else (_loss_batch, 1)
    try:
        first = np.array(call(target, arguments(), answers))
        for name, words, holds in _properties(target, formula, setting, arguments, answers, first):
            if not holds():
                yield name, words
        if target.kind == "advantages" and (said := _weight(target, formula, setting)):
            yield "closed form", said
    except Exception:  # a golden batch shows it, smaller
        return


def _loss_batch() -> tuple[Any, ...]:
    new = np.linspace(-2, -1, 12, dtype=np.float32).reshape(4, 3)
    numbers = np.array([1.5, -0.5, -0.5, -0.5], dtype=np.float32)
    return new, new[::-1] + 0.1, new + 0.3, numbers, np.ones((4, 3), dtype=np.float32)


def _properties(
    target: Target, formula: Any, setting: Mapping[str, str], arguments: Arguments, answers: int, first: np.ndarray
) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    def same(found: Any) -> bool:
        return bool(np.allclose(found, first, rtol=1e-5, atol=1e-6))

    def untouched() -> bool:
        given, before = arguments(), arguments()
        call(target, given, answers)
        return all(np.array_equal(one, other) for one, other in zip(given, before, strict=True))

    def reordered() -> bool:
        given, order = arguments(), np.arange(len(arguments()[0]))[::-1]
        turned = [one[order].copy() if isinstance(one, np.ndarray) else [one[row] for row in order] for one in given]
        found = np.array(call(target, turned, answers))
        return same(found if answers == 1 else found[order])

    yield "same again", "a second call gives other numbers", lambda: same(call(target, arguments(), answers))
    yield "inputs", "changes the arrays that it is given", untouched
    yield "order of rows", "rows in another order get other numbers", reordered
    if target.kind == "advantages":
        rewards, ids = arguments()
        names = [f"prompt-{9 - p}" for p in ids]
        yield "names of groups", "other ids give other numbers", lambda: same(call(target, (rewards.copy(), names), answers))
        if local(formula, setting):
            yield (
                "micro-batches",
                "a group alone gets other numbers than in its batch",
                lambda: same(_apart(target, rewards, ids)),
            )


def _apart(target: Target, rewards: np.ndarray, ids: list[Any]) -> np.ndarray:
    """The numbers of a batch asked group by group, as micro-batches of whole groups see it."""
    found = np.zeros(len(ids))
    for group in set(ids):
        rows = [row for row, name in enumerate(ids) if name == group]
        found[rows] = call(target, (rewards[rows].copy(), [group] * len(rows)), len(rows))
    return found


def _weight(target: Target, formula: Any, setting: Mapping[str, str]) -> str:
    """Where the expected pull on binary rewards is not the closed form's, in words."""
    if formula.closed_form is None or not local(formula, setting):
        return ""
    from recast_sim.closed_forms.gradient_weights import weight, weight_from_advantages

    rewards = np.array([[float(row < hits) for row in range(WIDTH)] for hits in range(WIDTH + 1)], dtype=np.float32)
    ids = [group for group in range(WIDTH + 1) for _ in range(WIDTH)]
    found = np.array(call(target, (rewards.reshape(-1), ids), rewards.size)).reshape(WIDTH + 1, WIDTH)
    pulls = weight_from_advantages(found[1:, 0], found[:-1, -1], HIT_RATES)
    more = {"std_ddof": int(setting["ddof"])} if "ddof" in setting else {}
    wanted = weight(formula.closed_form, HIT_RATES, WIDTH, **formula.parameters, **more)
    far = ~np.isclose(pulls, wanted, rtol=2e-3)
    if not far.any():
        return ""
    p, pull, one = (float(values[far][0]) for values in (np.array(HIT_RATES), pulls, wanted))
    return f"gradient weight at hit rate {p:g} of G = {WIDTH}: {pull:.4g}, closed form {one:.4g}"
