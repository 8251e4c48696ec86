"""Names to constructors. A constructor is one function from a `GroupState` to a `GroupState`, composed of steps."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from recast_sim import plugins
from recast_sim.signal.group_state import GroupState
from recast_sim.signal.signal_config import SignalError

Apply = Callable[[GroupState], GroupState]
Anchors = Literal["never", "all_zero", "always"]
AllZero = Literal["0", "negative", "positive", "centred", "by level", "-baseline", "repaired", "target", "rescued", "redrawn"]
_NEEDS = (
    *("logprob_PG", "anchor_logprob_P", "baseline_P", "reference_logprob_PG", "anchor_reference_logprob_P"),
    *("sids_PGL", "targets_PTL", "anchor_logprob_PL", "entropy_PGL"),
)
_REGISTRY: dict[str, "Constructor"] = {}


@dataclass(frozen=True)
class Constructor:
    """A registered constructor.

    Attributes:
        name: its key in the registry.
        apply: the composition of steps.
        source: paper id or code base it follows.
        width: rows of a group that the actor sees at most: a number, "G", "G + 1", a config field, "1 + " one of them.
        all_zero: what an all-zero group (that has an anchor) yields: "0" nothing; "negative" every row is pushed down, so
            long as the batch has a hit; "positive" every row is pushed up; "centred" misses against misses, which sum to 0;
            "by level" misses that share codes of a target up, others down; "-baseline" every row gets minus its prompt's
            baseline; "repaired" an anchor up and sampled rows down; "target" the anchor alone; "rescued" one sampled miss up,
            others down; "redrawn" no rows, the group is drawn anew.
        anchors: "never", "all_zero" (repairs groups without a hit) or "always" (every group gets its target).
        structural: orders rollouts by structural score.
        rollouts: needs sampled rollouts at all (plain supervision does not).
        redraws: marks groups to be replaced by newly drawn ones; their rollouts count in the budget.
        needs: arguments of `construct` that it reads beyond scores and anchors ("logprob_PG", "baseline_P", ...).
        appends: puts the anchor into a row of its own, G; the signal has G + 1 rows a group.
        compares: sets a group's rollouts against each other, so that it needs two of them.
        level_wise: gives the levels of a row numbers of their own.
    """

    name: str
    apply: Apply
    source: str
    width: str
    all_zero: str
    anchors: Anchors = "never"
    structural: bool = False
    rollouts: bool = True
    redraws: bool = False
    needs: tuple[str, ...] = ()
    appends: bool = False
    compares: bool = True
    level_wise: bool = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A registered constructor is pickled as its name: another process has its own."""
        own = _REGISTRY.get(self.name) is self
        return (get_constructor, (self.name,)) if own else super().__reduce_ex__(protocol)

    @property
    def off_policy(self) -> bool:
        """Rows that no policy sampled may reach the actor."""
        return self.anchors != "never"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every argument of `construct` that the caller must supply besides the rewards."""
        scores, anchors = ("structural_PG",) * self.structural, ("has_anchor_P",) * self.off_policy
        return (*scores, *anchors, *self.needs)


def register(
    name: str,
    *,
    source: str,
    width: str = "G",
    all_zero: str = "0",
    anchors: Anchors = "never",
    structural: bool = False,
    rollouts: bool = True,
    redraws: bool = False,
    needs: tuple[str, ...] = (),
    appends: bool = False,
    compares: bool = True,
    level_wise: bool = False,
) -> Callable[[Apply], Apply]:
    """Decorator: register a function from state to state under `name`; fields as in `Constructor`.

    Raises:
        SignalError: the name is taken, or `anchors`, `all_zero` or an entry of `needs` is none of the known words.
    """

    def decorate(apply: Apply) -> Apply:
        _require("anchors", anchors, get_args(Anchors))
        _require("all_zero", all_zero, get_args(AllZero))
        for argument in needs:
            _require("needs", argument, _NEEDS)
        if name in _REGISTRY:
            raise SignalError(f"register: constructor {name!r} exists already; choose another name")
        flags = (structural, rollouts, redraws, needs, appends, compares, level_wise)
        _REGISTRY[name] = Constructor(name, apply, source, width, all_zero, anchors, *flags)
        plugins.registered(name, apply)
        return apply

    return decorate


def unregister(name: str) -> None:
    """Take a user's constructor out again (tests, notebooks that re-run a cell). Raises SignalError if unknown."""
    get_constructor(name)
    del _REGISTRY[name]
    plugins.unregistered(name)


def get_constructor(name: str) -> Constructor:
    """The constructor registered as `name`, which may be "module:name" or "file.py:name", loaded here, or one of an installed
    package (entry points of the group "recast.constructors").

    Raises:
        SignalError: unknown, with the known ones.
        PluginError: a module or package that cannot be loaded.
    """
    place, _, own = name.rpartition(":")
    if place:
        plugins.load_plugin(place)
    if own not in _REGISTRY:
        plugins.load_installed()
    if own not in _REGISTRY:
        near = ", ".join(get_close_matches(own, _REGISTRY))
        meant = f"did you mean {near}? " if near else ""
        mend = "or load your own: --plugin FILE.py"
        raise SignalError(f"constructor: {own!r} is not registered; {meant}known: {', '.join(sorted(_REGISTRY))}; {mend}")
    return _REGISTRY[own]


def list_constructors() -> list[Constructor]:
    """All registered constructors in order of registration, those of installed packages last."""
    plugins.load_installed()
    return list(_REGISTRY.values())


def _require(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SignalError(f"register: {field} {value!r} must be one of {', '.join(known)}")
