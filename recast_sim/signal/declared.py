"""What a constructor declares, held against what it does on i.i.d. groups of one target and nine misses.

Axis letters as in `group_state`: P groups, G rollouts, L levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recast_sim.signal.construct import Signal, construct
from recast_sim.signal.registry import Constructor
from recast_sim.signal.signal_config import SignalConfig, SignalError

GROUPS, MISSES, LEVELS = 64, 9, 3
SHAPES = ((4, 0.2), (8, 0.05), (9, 0.5))  # rollouts a group, hit rate
_TINY = 1e-9
Batch = dict[str, Any]  # arguments of `construct`


@dataclass(frozen=True)
class Finding:
    """One declaration: what was declared, what was found, and whether they agree (None: found, and not declared)."""

    what: str
    declared: str
    found: str
    holds: bool | None


def check_declared(constructor: Constructor, config: SignalConfig | None = None) -> list[Finding]:
    """All that can be told of a constructor from its signals; the groups are always the same.

    Raises:
        SignalError: it fails on ordinary groups, or reads what it does not declare to need.
    """
    config = config or SignalConfig()
    batches = [iid_groups(G, p) for G, p in SHAPES]
    signals = [_construct(constructor, batch, config) for batch in batches]
    return [
        _width(constructor, config, signals),
        _anchors(constructor, batches, signals),
        _all_zero(constructor, config),
        _redraws(constructor, signals),
        _scores(constructor, batches, signals, config),
        _levels(constructor, signals),
        _finite(signals),
        _repeats(constructor, batches[0], config),
        _neighbours(constructor, batches[0], config),
        _order(constructor, batches[0], signals[0], config),
    ]


def declared_width(words: str, group_size: int, config: SignalConfig) -> int:
    """A declared width as a number: "G + 1", "1 + care_negatives", "pods_width", "2"; "G of kept groups" is G at most."""
    terms = words.removesuffix(" of kept groups").split(" + ")
    return sum(group_size if t == "G" else int(t) if t.isdigit() else getattr(config, t) for t in terms)


def iid_groups(group_size: int, hit_rate: float, groups: int = GROUPS, seed: int = 0) -> Batch:
    """Arguments of `construct` for groups of a policy over one target and nine misses, float64.

    The first group is all hits, the second has none.
    """
    policy, generator = _policy(hit_rate, seed)
    leaf_PG = torch.multinomial(policy.expand(groups, -1), group_size, replacement=True, generator=generator)
    leaf_PG[0], leaf_PG[1] = 0, 1
    return _batch(policy, leaf_PG)


def groups_by_hits(group_size: int, hit_rate: float, groups: int = GROUPS, seed: int = 0) -> Batch:
    """The same for groups of 0, 1, ... G hits, `groups` of each in that order, hits in any slot."""
    policy, generator = _policy(hit_rate, seed)
    count = groups * (group_size + 1)
    miss_PG = 1 + torch.multinomial(policy[1:].expand(count, -1), group_size, replacement=True, generator=generator)
    hits_P1 = torch.arange(group_size + 1).repeat_interleave(groups)[:, None]
    place_PG = torch.rand(count, group_size, generator=generator).argsort(1)
    return _batch(policy, torch.where(place_PG < hits_P1, 0, miss_PG))


def acting_shares(constructor: Constructor, config: SignalConfig | None = None) -> list[float]:
    """Of groups of nine rollouts with 0, 1, ... 9 hits and an anchor, the share that it makes an update of, by number of hits.

    Raises:
        SignalError: it fails on ordinary groups, or reads what it does not declare to need.
    """
    (G, hit_rate), groups = SHAPES[-1], 8
    signal = _construct(constructor, groups_by_hits(G, hit_rate, groups), config or SignalConfig())
    return signal.learnable_P.reshape(G + 1, groups).double().mean(1).tolist()


def _policy(hit_rate: float, seed: int) -> tuple[Tensor, torch.Generator]:
    """Probabilities of the target and the misses."""
    generator = torch.Generator().manual_seed(seed)
    rest_M = torch.rand(MISSES, generator=generator, dtype=torch.float64).softmax(0)
    return torch.cat([torch.tensor([hit_rate], dtype=torch.float64), (1 - hit_rate) * rest_M]), generator


def _batch(policy: Tensor, leaf_PG: Tensor) -> Batch:
    groups = len(leaf_PG)
    scores = torch.cat([torch.ones(1, dtype=torch.float64), torch.linspace(0, 0.5, MISSES, dtype=torch.float64)])
    rewards_PG, structural_PG, logprob_PG = (leaf_PG == 0).double(), scores[leaf_PG], policy.log()[leaf_PG]
    hit_P = policy[0].log().expand(groups)
    return {
        "rewards_PG": rewards_PG,
        "structural_PG": structural_PG,
        "has_anchor_P": torch.ones(groups, dtype=torch.bool),
        "logprob_PG": logprob_PG,
        "anchor_logprob_P": hit_P,
        "baseline_P": policy[0].expand(groups),
        "reference_logprob_PG": logprob_PG - 0.1,
        "anchor_reference_logprob_P": hit_P - 0.1,
        **level_inputs(rewards_PG, structural_PG),
    }


def level_inputs(rewards_PG: Tensor, scores_PG: Tensor, levels: int = LEVELS) -> Batch:
    """Codes of SIDs that agree with rewards and scores: a hit is the target 1, 2, 3, a miss shares 0, 1 or 2 of its levels."""
    P, G = rewards_PG.shape
    near_PG = (scores_PG >= 0.01).long() + (scores_PG >= 0.1).long()
    depth_PG = torch.where(rewards_PG > 0, levels, near_PG.clamp(max=levels - 1))
    target_L, off_G1 = torch.arange(1, levels + 1), 10 + torch.arange(G)[:, None] % 2
    split_L = target_L.double() / target_L.sum()
    return {
        "sids_PGL": torch.where(torch.arange(levels) < depth_PG[..., None], target_L, off_G1),
        "targets_PTL": target_L.repeat(P, 1, 1),
        "anchor_logprob_PL": (-0.3 - torch.arange(P, dtype=torch.float64))[:, None] * split_L,
        "entropy_PGL": 0.25 + depth_PG[..., None] + torch.arange(levels, dtype=torch.float64) / 4,
    }


def all_zero_behaviours(constructor: Constructor, config: SignalConfig) -> dict[str, bool]:
    """Which of the words of `Constructor.all_zero` describe what it makes of a group without a hit beside one with a hit."""
    rewards_PG = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    scores_PG = torch.where(rewards_PG > 0, 1.0, 0.01 * torch.arange(4, dtype=torch.float64))
    logprob_PG = -0.5 * torch.arange(1, 5, dtype=torch.float64).expand(2, -1)
    minus_two, quarter = (torch.full((2,), value, dtype=torch.float64) for value in (-2.0, 0.25))
    batch = {
        **{"rewards_PG": rewards_PG, "structural_PG": scores_PG, "has_anchor_P": torch.ones(2, dtype=torch.bool)},
        **{"logprob_PG": logprob_PG, "reference_logprob_PG": logprob_PG, "baseline_P": quarter},
        **{"anchor_logprob_P": minus_two, "anchor_reference_logprob_P": minus_two},
        **level_inputs(rewards_PG, scores_PG),
        "anchor_logprob_PL": level_inputs(rewards_PG[:1], scores_PG[:1])["anchor_logprob_PL"].repeat(2, 1),
    }
    signal = _construct(constructor, batch, config)
    numbers, active = signal.advantages_PG[0], signal.active_PG[0]
    anchor = torch.arange(signal.group_size) == signal.anchor_slot_P[0]
    other = _construct(constructor, batch | {"baseline_P": quarter * torch.tensor([3.0, 1.0])}, config)
    tracks = not torch.equal(other.advantages_PG, signal.advantages_PG)
    nowhere = torch.where(rewards_PG[..., None] > 0, batch["targets_PTL"], 99)
    by_level = bool(signal.learnable_P[0]) and not _construct(constructor, batch | {"sids_PGL": nowhere}, config).learnable_P[0]
    up, down = numbers > 0, numbers < 0
    found: Mapping[str, Any] = {
        "0": (numbers == 0).all() and not signal.redraw_P[0],
        "negative": ~up.any() and down.any() and not anchor.any() and active.all() and not tracks,
        "positive": up.all() and not anchor.any(),
        "centred": numbers.sum().abs() < _TINY and up.any() and not by_level and not anchor.any(),
        "by level": up.any() and by_level and not anchor.any(),
        "-baseline": (numbers == numbers[0]).all() and (numbers != 0).all() and tracks,
        "repaired": up[anchor].all() and ~up[~anchor].any() and down.any() and anchor.any(),
        "target": up[anchor].all() and anchor.any() and (numbers[~anchor] == 0).all(),
        "rescued": up.sum() == 1 and down.any() and not anchor.any(),
        "redrawn": signal.redraw_P[0] and not active.any(),
    }
    return {word: bool(value) for word, value in found.items()}


def _construct(constructor: Constructor, batch: Batch, config: SignalConfig) -> Signal:
    try:
        return construct(constructor, **batch, config=config)
    except SignalError:
        raise
    except Exception as error:
        G = batch["rewards_PG"].shape[1]
        said = f"{type(error).__name__}: {error}"
        raise SignalError(f"{constructor.name}: fails on ordinary groups of {G} ({said}); mend its function") from error


def _width(constructor: Constructor, config: SignalConfig, signals: list[Signal]) -> Finding:
    wanted = [declared_width(constructor.width, G, config) for G, _ in SHAPES]
    found = [int(signal.active_PG.sum(1).max()) for signal in signals]
    words = ", ".join(f"{rows} at G = {G}" for rows, (G, _) in zip(found, SHAPES, strict=True))
    return Finding("rows that reach the actor, at most", constructor.width, words, found == wanted)


def _anchors(constructor: Constructor, batches: list[Batch], signals: list[Signal]) -> Finding:
    repaired_P = torch.cat([signal.repaired_P for signal in signals])
    zero_P = torch.cat([(batch["rewards_PG"] == 0).all(1) for batch in batches])
    found = "always" if repaired_P.all() else "never" if not repaired_P.any() else "now and then"
    found = "all_zero" if torch.equal(repaired_P, zero_P) else found
    return Finding("where an anchor stands", constructor.anchors, found, found == constructor.anchors)


def _all_zero(constructor: Constructor, config: SignalConfig) -> Finding:
    found = [word for word, behaves in all_zero_behaviours(constructor, config).items() if behaves]
    shown = ", ".join(found) or "none of the known words"
    return Finding("a group without a hit", constructor.all_zero, shown, found == [constructor.all_zero])


def _redraws(constructor: Constructor, signals: list[Signal]) -> Finding:
    found = any(bool(signal.redraw_P.any()) for signal in signals)
    return Finding("asks for new groups", _yes(constructor.redraws), _yes(found), found == constructor.redraws)


def _scores(constructor: Constructor, batches: list[Batch], signals: list[Signal], config: SignalConfig) -> Finding:
    if not constructor.rollouts:
        return Finding("orders rollouts by score", _yes(constructor.structural), "needs no rollouts", None)
    found = False
    for batch, signal in zip(batches, signals, strict=True):
        other = batch | {"structural_PG": torch.where(batch["rewards_PG"] > 0, 1.0, 0.5 - batch["structural_PG"])}
        found |= not torch.equal(_construct(constructor, other, config).advantages_PG, signal.advantages_PG)
    return Finding("orders rollouts by score", _yes(constructor.structural), _yes(found), found == constructor.structural)


def _levels(constructor: Constructor, signals: list[Signal]) -> Finding:
    found, declared = any(signal.plan.coefficients_NL.shape[1] > 1 for signal in signals), constructor.level_wise
    return Finding("numbers of their own for levels", _yes(declared), _yes(found), found == declared)


def _finite(signals: list[Signal]) -> Finding:
    good = all(bool(signal.plan.coefficients_NL.isfinite().all()) for signal in signals)
    double = all(signal.advantages_PG.dtype == torch.float64 for signal in signals)
    found = "finite, of the rewards' type" if good and double else "not finite" if not good else "of another type"
    return Finding("numbers", "finite, of the rewards' type", found, good and double)


def _repeats(constructor: Constructor, batch: Batch, config: SignalConfig) -> Finding:
    first, again = (_construct(constructor, batch, config).advantages_PG for _ in range(2))
    same = torch.equal(first, again)
    return Finding("the same batch again", "the same signal", "the same signal" if same else "another signal", same)


def _neighbours(constructor: Constructor, batch: Batch, config: SignalConfig) -> Finding:
    together = _construct(constructor, batch, config).advantages_PG[2:]
    alone = _construct(constructor, {name: value[2:] for name, value in batch.items()}, config).advantages_PG
    return Finding("a group depends on the others", "", _yes(not torch.allclose(together, alone)), None)


def _order(constructor: Constructor, batch: Batch, signal: Signal, config: SignalConfig) -> Finding:
    turned = {name: value.flip(1) if "_PG" in name else value for name, value in batch.items()}
    G = batch["rewards_PG"].shape[1]
    there, back = signal.advantages_PG[:, :G], _construct(constructor, turned, config).advantages_PG[:, :G].flip(1)
    sums = torch.allclose(there.sort(1).values, back.sort(1).values)
    found = "no" if torch.allclose(there, back) else "only which of equal rows is taken" if sums else "yes"
    return Finding("the order of rollouts matters", "", found, None)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
