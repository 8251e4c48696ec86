"""Every registered constructor as an advantage estimator of verl: `recast`, and `recast_<constructor>` for the others.

Axis letters: R rows of the batch, S response tokens.
"""
# pyright: reportMissingImports=false
# verl lives in an environment of its own (`make test-verl`)

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from recast_sim.signal import SignalError, get_constructor, list_constructors
from recast_train.adapters.flat_rows import select_rows
from recast_train.adapters.verl.handover import marked_by
from recast_train.adapters.verl.options import estimator_name, estimator_names


def register_estimators() -> None:
    """Register those that verl does not have yet; call it again after you registered a constructor of your own."""
    for constructor in list_constructors():
        for name in estimator_names(constructor.name):
            if name not in ADV_ESTIMATOR_REGISTRY:
                register_adv_est(name)(_estimator(constructor.name))


def advantages(constructor: str, token_level_rewards_RS: Tensor, response_mask_RS: Tensor, index_R: Any) -> Tensor:
    """Token-level advantages (R, S): each row's number on the tokens of its response mask, a level's own on those of a level.

    Rows that recast's sampler handed over bring their numbers along. Without the sampler the constructor runs at its default
    config on the groups of `index_R`, which works for those that read rewards alone. Rows without a token (verl's padding)
    get 0.

    Raises:
        SignalError: a constructor that needs more than rewards, and no sampler; or a sampler of another constructor.
    """
    real_R = response_mask_RS.any(1)
    score_R = token_level_rewards_RS.sum(1)
    uids = [str(uid) for uid, real in zip(index_R, real_R.tolist(), strict=True) if real]
    sampler = marked_by(uids)
    if sampler is None:
        number_R = _constructed(constructor, uids, score_R, real_R)
    elif sampler == constructor and get_constructor(constructor).level_wise:
        return token_level_rewards_RS * response_mask_RS
    elif sampler == constructor:
        number_R = score_R
    else:
        name = estimator_name(sampler)
        raise SignalError(f"algorithm.adv_estimator: {estimator_name(constructor)} met rows of the sampler's {name}; set one")
    return number_R[:, None] * response_mask_RS


def _constructed(constructor: str, uids: list[str], score_R: Tensor, real_R: Tensor) -> Tensor:
    if inputs := get_constructor(constructor).inputs:
        raise SignalError(
            f"algorithm.adv_estimator: {estimator_name(constructor)} needs {', '.join(inputs)} beside the rewards; "
            "set trainer.v1.sampler.custom_sampler to recast's sampler (docs/verl.md)"
        )
    kept = select_rows(constructor, uids, score_R[real_R])
    number_N = torch.zeros_like(score_R[real_R]).scatter(0, kept.row_N, kept.coefficient_N)
    return torch.zeros_like(score_R).masked_scatter(real_R, number_N)


def _estimator(constructor: str) -> Any:
    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any, config: Any = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found = advantages(constructor, token_level_rewards, response_mask, index)
        return found, found

    return estimate
