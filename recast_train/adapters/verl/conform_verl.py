"""verl's own advantage estimators and loss as targets of `recast-report conform`: `verl:grpo`, `verl:loss`."""
# pyright: reportMissingImports=false

from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo import core_algos

_METHODS = {  # the formula that each of verl's estimators is held against
    "grpo": "grpo",
    "grpo_vectorized": "grpo",
    "grpo_passk": "best_of_k",
    "rloo": "rloo",
    "rloo_vectorized": "rloo",
    "opo": "dr_grpo",
    "reinforce_plus_plus": "reinforce_pp",
    "reinforce_plus_plus_baseline": "reinforce_pp_baseline",
    "gpg": "gpg",
    "gdpo": "gdpo",
}
_LOSS = "loss"
_MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "token-sum")  # of agg_loss
TARGETS = ("dr_grpo", *_METHODS, *(f"loss:{mode}" for mode in _MODES))  # every name that `target` takes


class _Config(SimpleNamespace):
    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def target(make: Any, error: Any, name: str) -> Any:
    """The target of an estimator's name in verl, of "dr_grpo", or of "loss" with a mode of `agg_loss`: "loss:token-mean"."""
    said = f"verl {version('verl')}"
    first, _, mode = name.partition(":")
    if first == _LOSS:
        mode = mode or "token-mean"
        if mode not in _MODES:
            raise error(f"target: verl:loss:{mode} is not known; choose from {', '.join(_MODES)}")
        return make(f"verl:loss:{mode}", lambda *given: loss(mode, *given), kind="loss", notes=(f"{said}, {mode}, low_var_kl",))
    plain = "grpo" if name == "dr_grpo" else name
    if plain not in _METHODS:
        raise error(f"target: verl:{name} is not known; choose from dr_grpo, loss, {', '.join(_METHODS)}")
    more = {"norm_adv_by_std_in_grpo": False} if name == "dr_grpo" else {}
    equal = ("opo is dr_grpo where all responses are equally long",) * (name == "opo")
    notes = (f"{said}, core_algos, one token a response", *equal)
    method = "dr_grpo" if name == "dr_grpo" else _METHODS[plain]
    return make(f"verl:{name}", lambda rewards, ids: advantages(plain, rewards, ids, **more), method=method, notes=notes)


def advantages(name: str, rewards_N: Any, ids_N: Any, **more: Any) -> Any:
    estimate = core_algos.get_adv_estimator_fn(name)
    rewards = torch.from_numpy(rewards_N)[:, None]
    index = np.empty(len(ids_N), dtype=object)  # as a DataProto holds uids
    index[:] = ids_N
    given = {"token_level_rewards": rewards, "response_mask": torch.ones(len(rewards), 1), "index": index}
    config = _Config(gamma=1.0, norm_adv_by_std_in_grpo=True)
    found, _ = estimate(**given, **({} if name.startswith("gdpo") else {"config": config}), **more)
    return found[:, 0]


def loss(mode: str, new_NS: Any, old_NS: Any, reference_NS: Any, advantages_N: Any, mask_NS: Any) -> float:
    """The actor's loss: the policy loss "vanilla" and the KL loss, summed as `agg_loss` says."""
    new, old, reference, numbers, mask = (
        torch.from_numpy(table) for table in (new_NS, old_NS, reference_NS, advantages_N, mask_NS)
    )
    config = _Config(clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=3.0, global_batch_info={})
    policy = core_algos.get_policy_loss_fn("vanilla")
    numbers = numbers[:, None].expand_as(new)
    total, _ = policy(old_log_prob=old, log_prob=new, advantages=numbers, response_mask=mask, loss_agg_mode=mode, config=config)
    kl = core_algos.kl_penalty(new, reference, "low_var_kl")
    return float(total + 0.1 * core_algos.agg_loss(loss_mat=kl, loss_mask=mask, loss_agg_mode=mode))
