"""A target against the golden vectors: its method, the choices that explain it, and the smallest case of what none explains."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from recast_analysis.conform.advantage_formulas import FORMULAS
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.formula import EQUAL
from recast_analysis.conform.golden import Key, golden, key
from recast_analysis.conform.golden_batches import random_case, random_loss_case
from recast_analysis.conform.judged_target import Target, call
from recast_analysis.conform.loss_formulas import LOSS
from recast_analysis.conform.properties import broken_properties

BATCHES = 100  # random ones
_KNOWN: dict[Key, Sequence[float]] = {}  # numbers of golden batches


@dataclass(frozen=True)
class Remark:
    """One line of a verdict.

    Attributes:
        verdict: "agrees", "choice", "fault" or "not run".
        what: the choice, the property or the golden batch that it is about.
        says: in words.
        minimal: of a fault, the smallest batch that shows it: its arguments, `got` (or `raised`) and `expected`.
    """

    verdict: str
    what: str
    says: str
    minimal: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What is known of a target. `setting` holds the options of its method's choices that explain the most golden batches."""

    target: Target
    method: str
    setting: dict[str, str]
    explained: int
    asked: int
    findings: Sequence[Remark]

    @property
    def faults(self) -> list[Remark]:
        return [finding for finding in self.findings if finding.verdict == "fault"]


@dataclass(frozen=True)
class _Answer:
    values: list[float] | None
    raised: str = ""


def judge(target: Target, method: str | None = None, seed: int = 0, batches: int = BATCHES) -> Verdict:
    """Ask the target about all golden batches and some random ones, and explain what it says.

    Args:
        method: the formula that it is held against; default the one that the target claims to be, else the one that fits best.

    Raises:
        ConformError: an unknown method, or a target that answers nothing.
    """
    formulas: dict[str, Any] = FORMULAS if target.kind == "advantages" else {"loss": LOSS}
    method = method or target.method
    if method is not None and method not in formulas:
        if method == "loss" or method in FORMULAS:
            kind = "a loss" if target.kind == "loss" else "advantages"
            raise ConformError(f"--method: {method!r} is no formula of {kind}, which {target.name} gives; leave it out")
        raise ConformError(f"--method: {method!r} has no formula here; choose from {', '.join(formulas)}")
    if method is not None:
        formulas = {method: formulas[method]}
    covered = [case for case in golden(target.kind).cases if any(formula.covers(case) for formula in formulas.values())]
    asked = [case for case in covered if target.functions or not case.functions]
    answers = {case.name: _ask(target, case) for case in asked}
    answered = [case for case in asked if answers[case.name].values is not None]
    if not answered:
        raise ConformError(
            f"target: {target.name} raises on every batch ({answers[asked[0].name].raised}); see docs/conform.md"
        )
    search = _Search(answered, answers)
    explained, method, setting = search.best(formulas)
    formula = formulas[method]
    asked = [case for case in asked if formula.covers(case)]
    unseen = search.unseen(method, formula, setting)
    refused = {case.may_refuse: answers[case.name].raised for case in asked if case.may_refuse and answers[case.name].raised}
    findings = [*_choices(formula, setting, unseen, refused)]
    faulty = [c for c in asked if not (c.may_refuse and answers[c.name].raised) and not search.agrees(method, c, setting)]
    faulty += _first_random(target, formula, setting, seed, batches)
    findings += _faults(target, formula, setting, faulty)
    findings += [Remark("fault", *broken) for broken in broken_properties(target, formula, setting)]
    if formula.only is not None:
        findings.append(Remark("not run", "other batches", f"{method} is for {formula.only[0]}"))
    if not target.functions and any(case.functions for case in covered):
        findings.append(Remark("not run", "functions", "takes one reward a row (--functions: a table of them)"))
    return Verdict(target, method, setting, explained, len(asked), findings)


class _Search:
    """How well settings explain answers."""

    def __init__(self, cases: Sequence[Any], answers: dict[str, _Answer]) -> None:
        self.cases, self.answers = cases, answers
        self._fits: dict[tuple[Key, str], list[bool]] = {}  # settings that a batch cannot tell apart share one

    def best(self, formulas: Mapping[str, Any]) -> tuple[int, str, dict[str, str]]:
        """Batches that the best setting explains, its method, and the setting: of equals the nearest to its reference."""
        best, chosen, most = "", {}, (-1, -1)
        for method, formula in formulas.items():
            for setting in formula.settings():
                score = self.score(method, setting)
                if score > most:
                    best, chosen, most = method, setting, score
                if most[0] == len(self.cases):  # nothing can be better
                    return most[0], best, chosen
        return most[0], best, chosen

    def score(self, method: str, setting: dict[str, str]) -> tuple[int, int]:
        """Batches and rows that the setting explains."""
        fits = [self._rows(method, case, setting) for case in self.cases]
        return sum(map(all, fits)), sum(map(sum, fits))

    def agrees(self, method: str, case: Any, setting: dict[str, str]) -> bool:
        return self.answers[case.name].values is not None and all(self._rows(method, case, setting))

    def unseen(self, method: str, formula: Any, setting: dict[str, str]) -> set[str]:
        """Choices that no answer tells apart."""
        best, found = self.score(method, setting), set()
        for name, options in formula.choices.items():
            others = [{**setting, name: option} for option in options if option != setting[name]]
            if name != EQUAL and others and all(self.score(method, other) == best for other in others):
                found.add(name)
        return found

    def _rows(self, method: str, case: Any, setting: dict[str, str]) -> list[bool]:
        at = (key(method, case, setting), setting.get(EQUAL, ""))
        if at not in self._fits:
            formula, values = _formula(method), self.answers[case.name].values or []
            covered = formula.covers(case)
            wanted = _golden_values(method, case, setting) if covered else []
            self._fits[at] = _close(formula, case, values, wanted, setting) if covered else [False] * case.answers
        return self._fits[at]


def _formula(method: str) -> Any:
    return LOSS if method == "loss" else FORMULAS[method]


def _golden_values(method: str, case: Any, setting: dict[str, str]) -> Sequence[float]:
    """Those of the files, else computed and remembered: no target changes them."""
    at = key(method, case, setting)
    if at not in _KNOWN:
        stored = golden("loss" if method == "loss" else "advantages").expected.get(at)
        _KNOWN[at] = case.expected(_formula(method), setting) if stored is None else stored
    return _KNOWN[at]


def _close(formula: Any, case: Any, values: Sequence[float], wanted: Sequence[float], setting: dict[str, str]) -> list[bool]:
    if formula.interchangeable:
        values = case.lined_up(values, wanted)
    rows = zip(values, wanted, case.tolerance(wanted, setting), strict=True)
    return [abs(value - one) <= within or (math.isnan(value) and math.isnan(one)) for value, one, within in rows]


def _ask(target: Target, case: Any) -> _Answer:
    try:
        return _Answer(call(target, case.arguments(), case.answers))
    except Exception as error:  # a foreign function may raise anything
        return _Answer(None, f"{type(error).__name__}: {error}".splitlines()[0][:200])


def _choices(formula: Any, setting: dict[str, str], unseen: set[str], refused: dict[str, str]) -> Iterator[Remark]:
    reference = formula.reference()
    for name, option in setting.items():
        if name in refused:
            yield Remark("choice", name, f"refused: {refused[name]}")
        elif name in unseen:
            yield Remark("not run", name, "no batch that was answered tells")
        elif option == reference[name]:
            yield Remark("agrees", name, option)
        else:
            yield Remark("choice", name, f"{option} (reference: {reference[name]})")
    yield from (Remark("choice", name, f"refused: {said}") for name, said in refused.items() if name not in setting)


def _first_random(target: Target, formula: Any, setting: dict[str, str], seed: int, batches: int) -> list[Any]:
    """The first random batch that the setting does not explain, of those that the formula says something of."""
    draw: Callable[[int], Any] = random_case if target.kind == "advantages" else random_loss_case
    cases = filter(formula.covers, (draw(1_000_000 * seed + number) for number in count()))
    found = next((case for case in islice(cases, batches) if _failure(target, formula, setting, case)), None)
    return [] if found is None else [found]


def _failure(target: Target, formula: Any, setting: dict[str, str], case: Any) -> str:
    """How the target fails a batch: nothing where it does not, where it may refuse it, or where the formula says nothing."""
    if not formula.covers(case):
        return ""
    answer = _ask(target, case)
    if answer.values is None:
        return "" if case.may_refuse else re.sub(r"[\W\d]+", " ", answer.raised)
    return "" if all(_close(formula, case, answer.values, case.expected(formula, setting), setting)) else "numbers"


def _faults(target: Target, formula: Any, setting: dict[str, str], faulty: Sequence[Any]) -> Iterator[Remark]:
    """A finding for each smallest batch; batches that shrink to the same one share it."""
    by_shape: dict[str, tuple[list[str], dict[str, Any]]] = {}
    if EQUAL in setting:  # no smaller batch that is off by mere rounding
        setting = setting | {EQUAL: formula.choices[EQUAL][-1]}
    for case in faulty:
        kind = _failure(target, formula, setting, case)
        small = shrunk(case, lambda other, kind=kind: _failure(target, formula, setting, other) == kind)
        answer = _ask(target, small)
        told = {"raised": answer.raised} if answer.values is None else {"got": [_plain(value) for value in answer.values]}
        minimal = {**small.shown(), **told, "expected": [_plain(value) for value in small.expected(formula, setting)]}
        by_shape.setdefault(repr(small.shown()), ([], minimal))[0].append(case.name)
    for names, minimal in by_shape.values():
        said = "raises" if "raised" in minimal else "not finite" if None in minimal["got"] else "no choice explains it"
        yield Remark("fault", names[0], said if len(names) == 1 else f"{said}; also {', '.join(names[1:])}", minimal)


def shrunk(case: Any, fails: Callable[[Any], bool]) -> Any:
    """A case that fails and of which no simpler one does (`Case.smaller`)."""
    while True:
        simpler = next((other for other in case.smaller() if _size(other) and fails(other)), None)
        if simpler is None:
            return case
        case = simpler


def _size(case: Any) -> int:
    first = case.arguments()[0]
    return first.size


def _plain(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
