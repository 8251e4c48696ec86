"""Names to constructors. A constructor is one function from a `GroupState` to a `GroupState`, composed of steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from recast_sim.signal.config import SignalError
from recast_sim.signal.state import GroupState

Apply = Callable[[GroupState], GroupState]
Anchors = Literal["never", "all_zero", "always"]
_REGISTRY: dict[str, "Constructor"] = {}


@dataclass(frozen=True)
class Constructor:
    """A registered constructor.

    Attributes:
        name: its key in the registry.
        apply: the composition of steps.
        source: paper id or code base it follows.
        width: rows of a group that the actor sees, in words ("G", "2", "pods_width", ...).
        all_zero: what an all-zero group yields, in words.
        anchors: "never", "all_zero" (repairs groups without a hit) or "always" (every group gets its target).
        structural: orders rollouts by structural score.
        rollouts: needs sampled rollouts at all (plain supervision does not).
        redraws: marks groups to be replaced by newly drawn ones; their rollouts count in the budget.
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
) -> Callable[[Apply], Apply]:
    """Decorator: register a function from state to state under `name`; fields as in `Constructor`.

    Raises:
        SignalError: the name is taken, or `anchors` is none of its values.
    """

    def decorate(apply: Apply) -> Apply:
        if anchors not in get_args(Anchors):
            raise SignalError(f"register: anchors {anchors!r} must be one of {', '.join(get_args(Anchors))}")
        if name in _REGISTRY:
            raise SignalError(f"register: constructor {name!r} exists already; choose another name")
        _REGISTRY[name] = Constructor(name, apply, source, width, all_zero, anchors, structural, rollouts, redraws)
        return apply

    return decorate


def unregister(name: str) -> None:
    """Take a user's constructor out again (tests, notebooks that re-run a cell). Raises SignalError if unknown."""
    get_constructor(name)
    del _REGISTRY[name]


def get_constructor(name: str) -> Constructor:
    """The constructor registered as `name`. Raises SignalError naming the known ones."""
    if name not in _REGISTRY:
        raise SignalError(f"constructor: {name!r} is not registered; known: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def list_constructors() -> list[Constructor]:
    """All registered constructors in order of registration."""
    return list(_REGISTRY.values())
