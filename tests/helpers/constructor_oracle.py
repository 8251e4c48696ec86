"""Every constructor once more, in plain Python: what the papers and the docstrings say, one group and one row at a time.

No tensors: a batch is a dict of nested lists under the argument names of `construct`. `expected` returns what the plan and the
signal must hold.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracle_groups import Group, boundary, shaped
from oracle_levels_and_batches import (
    ada_grpo,
    bnpo,
    chord,
    deepest_level,
    dft,
    exp_reward_sft,
    gpg,
    grpo_sr,
    lens,
    recast_diverging,
    recast_masked,
    reinforce_pp,
    reinforce_pp_baseline,
    rl_zvp,
    sapo,
    sibling,
    sibling_grpo,
    spo,
)
from oracle_rows import (
    add_gt,
    beam_listwise,
    care,
    composite,
    dapo,
    dr_grpo,
    grpo,
    grpo_anchor,
    hits_light_anchor,
    hybrid,
    luffy,
    max_rl,
    mixture_anchor,
    near_miss,
    ngrpo,
    pass_at_k,
    pods,
    rank_reward,
    recast,
    reinforce,
    repair_only,
    reward_share,
    rloo,
    rloo_anchor,
    s_dpo,
    sft,
    sft_hard_negative,
    tempered_anchor,
    two_grpo,
    visurf,
    wpauc,
)


@dataclass(frozen=True)
class Expected:
    """Outcome of a constructor: by kept row (`rows`, `numbers`, `weights`, `anchors`), else by prompt."""

    group_size: int
    rows: list[int]
    numbers: list[list[float]]
    weights: list[float]
    anchors: list[bool]
    slot: list[int]
    positive: list[int]
    negative: list[int]
    redraw: list[bool]
    normaliser: float


def expected(name: str, batch: dict[str, Any], config: Any) -> Expected:
    """What `construct(name, **batch, config=config)` must give."""
    groups = [_group(batch, p) for p in range(len(batch["rewards_PG"]))]
    natural = sum(bool(group.hits(config)) for group in groups) / len(groups)
    ORACLES[name](groups, config)
    width = len(groups[0].reward)
    places = [(p, g) for p, group in enumerate(groups) for g in sorted(group.numbers)]
    return Expected(
        group_size=width,
        rows=[p * width + g for p, g in places],
        numbers=[groups[p].numbers[g] for p, g in places],
        weights=[_weight(groups[p], config, natural) if g == groups[p].slot else 1.0 for p, g in places],
        anchors=[g == groups[p].slot for p, g in places],
        slot=[group.slot for group in groups],
        positive=[group.positive for group in groups],
        negative=[group.negative for group in groups],
        redraw=[group.redraw for group in groups],
        normaliser=max(
            1, {"active_rows": len(places), "groups": len(groups), "all_rows": len(groups) * width}[config.normaliser]
        ),
    )


def _group(batch: dict[str, Any], p: int) -> Group:
    reward = [float(r) for r in batch["rewards_PG"][p]]
    valid = batch["valid_PG"][p] if batch.get("valid_PG") is not None else [True] * len(reward)

    def of(name: str, default: Any) -> Any:
        return default if batch.get(name) is None else batch[name][p]

    targets = of("targets_PTL", [])
    codes = [list(row) for row in of("sids_PGL", [])]
    return Group(
        reward=reward,
        live=[g for g, v in enumerate(valid) if v],
        score=[float(u) for u in of("structural_PG", [])],
        logprob=list(of("logprob_PG", [])),
        reference=list(of("reference_logprob_PG", [])),
        codes=codes,
        entropy=of("entropy_PGL", []),
        targets=[target for target in targets if min(target) >= 0],
        has_anchor=bool(of("has_anchor_P", False)),
        anchor_codes=list(of("anchor_sids_PL", targets[0] if targets else [])),
        anchor_logprob=of("anchor_logprob_P", math.nan),
        anchor_reference=of("anchor_reference_logprob_P", math.nan),
        anchor_levels=of("anchor_logprob_PL", []),
        baseline=of("baseline_P", math.nan),
        levels=len(codes[0]) if codes else 0,
    )


def _weight(group: Group, config: Any, natural: float) -> float:
    """Factor on an anchor's row; `natural` is the share of groups with a sampled hit."""
    if group.weight is not None:
        return group.weight
    if config.anchor_weighting == "ratio_one":
        return 1.0
    if config.anchor_weighting == "annealed":
        return 1.0 - natural
    pi = math.exp(group.anchor_logprob)
    return max(pi, config.anchor_floor) if config.anchor_weighting == "clipped" else shaped(pi, config.luffy_gamma)


def _each(oracle: Callable[[Group, Any], None]) -> Callable[[list[Group], Any], None]:
    def over(groups: list[Group], config: Any) -> None:
        for group in groups:
            oracle(group, config)

    return over


_BY_GROUP = {
    **{f.__name__: f for f in (grpo, dr_grpo, rloo, dapo, max_rl, pass_at_k, ngrpo, rank_reward, pods, add_gt, two_grpo, care)},
    **{f.__name__: f for f in (luffy, visurf, wpauc, repair_only, recast, sft, sft_hard_negative, s_dpo, tempered_anchor)},
    **{f.__name__: f for f in (mixture_anchor, hits_light_anchor, beam_listwise, composite, reward_share)},
    **{f.__name__: f for f in (hybrid, grpo_anchor, rloo_anchor, near_miss, sapo, sibling, sibling_grpo, recast_masked)},
    **{f.__name__: f for f in (recast_diverging, dft, rl_zvp, chord, deepest_level, lens, exp_reward_sft, grpo_sr, ada_grpo)},
    "boundary_only": boundary,
    "w_reinforce": reinforce(lambda config: config.positive_weight, 1.0),
    "psr": reinforce(lambda config: 1.0, 0.0),
    "nsr": reinforce(lambda config: 0.0, 1.0),
}
ORACLES: dict[str, Callable[[list[Group], Any], None]] = {
    **{name: _each(oracle) for name, oracle in _BY_GROUP.items()},
    **{f.__name__: f for f in (reinforce_pp, reinforce_pp_baseline, gpg, bnpo, spo)},
}
