"""TRL's own advantages and loss as targets of `recast-report conform`: `trl:grpo`, `trl:rloo`, `trl:loss:dapo`.

Its trainers compute them in the middle of methods, so those methods are called whole, on a trainer without a model whose
rollouts, rewards and log-probabilities are given.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl.trainer.grpo_trainer import GRPOTrainer

_ADVANTAGES = {  # name: trainer, formula, options
    "grpo": ("GRPOTrainer", "grpo", {"scale_rewards": "group"}),
    "dr_grpo": ("GRPOTrainer", "dr_grpo", {"scale_rewards": "none"}),
    "batch": ("GRPOTrainer", "grpo", {"scale_rewards": "batch"}),
    "gdpo": ("GRPOTrainer", "gdpo", {"multi_objective_aggregation": "normalize_then_sum"}),
    "rloo": ("RLOOTrainer", "rloo", {}),
}
_LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo")
TARGETS = (*_ADVANTAGES, *(f"loss:{kind}" for kind in _LOSSES))  # every name that `target` takes
_FILLED = "TRL groups rows by place: rows are sorted by group, short groups are filled with None"


def target(make: Any, error: Any, name: str) -> Any:
    """The target of a name: "grpo" (also ""), "dr_grpo", "batch", "gdpo", "rloo", or "loss" with a loss type: "loss:dapo"."""
    said = f"TRL {trl.__version__}"
    first, _, kind = name.partition(":")
    if first == "loss":
        kind = kind or "dapo"
        if kind not in _LOSSES:
            raise error(f"target: trl:loss:{kind} is not known; choose from {', '.join(_LOSSES)}")
        notes = (f"{said}, loss_type {kind}",)
        return make(f"trl:loss:{kind}", lambda *given: loss(kind, error, *given), kind="loss", notes=notes)
    name = name or "grpo"
    if name not in _ADVANTAGES:
        raise error(f"target: trl:{name} is not known; choose from {', '.join(_ADVANTAGES)}, loss")
    trainer, method, options = _ADVANTAGES[name]
    said = f"{said}, {trainer}" + "".join(f", {option} {value}" for option, value in options.items())

    def function(rewards: Any, ids: Any) -> Any:
        return advantages(trainer, options, error, rewards, ids)

    return make(f"trl:{name}", function, method=method, functions=True, notes=(said, _FILLED))


def advantages(trainer: str, options: dict[str, Any], error: Any, rewards: Any, ids: Any) -> Any:
    """One number a row from `_generate_and_score_completions`."""
    places: dict[Any, list[int]] = defaultdict(list)
    for row, name in enumerate(ids):
        places[name].append(row)
    G = max(map(len, places.values()))
    table = torch.from_numpy(rewards.reshape(len(ids), -1)).float()
    slots = [rows + [-1] * (G - len(rows)) for rows in places.values()]
    flat = torch.tensor(slots).reshape(-1)
    filled = torch.where((flat >= 0)[:, None], table[flat], torch.nan)
    mine = _scripted(getattr(trl, trainer), filled.shape[1], G, options)
    prompts, completions, texts = ([value] * len(flat) for value in ([1], [2], "a"))
    few, all_of = (prompts, completions, texts), (prompts, completions, None, texts, None, {}, None, [])
    mine._generate = lambda _: few if trainer == "RLOOTrainer" else all_of
    mine._calculate_rewards = lambda *_: filled
    old = torch.zeros(len(flat), 1)
    mine._get_per_token_logps_and_entropies = lambda *_, **__: (old, None, None)
    with _told(error):
        found = mine._generate_and_score_completions([{"prompt": "x"} for _ in flat])["advantages"]
    return torch.zeros(len(ids)).scatter(0, flat[flat >= 0], found[flat >= 0].float())


def loss(kind: str, error: Any, new_NS: Any, old_NS: Any, reference_NS: Any, advantages_N: Any, mask_NS: Any) -> float:
    """The number of `_compute_loss` on one batch without accumulation."""
    new, old, reference, numbers, mask = (
        torch.from_numpy(table) for table in (new_NS, old_NS, reference_NS, advantages_N, mask_NS)
    )
    mine = _scripted(GRPOTrainer, 1, 1, {"loss_type": kind, "beta": 0.1, "max_completion_length": mask.shape[1]})
    mine._get_per_token_logps_and_entropies = lambda *_, **__: (new, torch.zeros_like(new), None)
    tokens = {"prompt_ids": torch.ones(len(numbers), 1, dtype=torch.long), "completion_ids": torch.ones_like(mask).long()}
    masks = {"prompt_mask": torch.ones(len(numbers), 1), "completion_mask": mask}
    given = {"old_per_token_logps": old, "ref_per_token_logps": reference, "advantages": numbers}
    with _told(error):
        return float(mine._compute_loss(None, {**tokens, **masks, **given, "num_items_in_batch": mask.sum()}))


def _scripted(base: Any, functions: int, G: int, options: dict[str, Any]) -> Any:
    """A trainer that was never constructed: it has what the two methods read."""
    mine = object.__new__(type("Scripted", (base,), {"_tokenizer": SimpleNamespace(pad_token_id=0)}))
    arguments = SimpleNamespace(
        per_device_train_batch_size=1, gradient_accumulation_steps=1, steps_per_generation=1, delta=None,
        use_bias_correction_kl=False, gradient_checkpointing=False, gradient_checkpointing_kwargs={},
    )  # fmt: skip
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), process_index=0, num_processes=1, sync_gradients=True,
        gather=lambda table: table, reduce=lambda table, reduction: table, unwrap_model=lambda model, **_: model,
    )  # fmt: skip
    own = {
        "accelerator": accelerator, "args": arguments,
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "environment_factories": None, "environments": None, "tools": None,
        "pad_to_multiple_of": None, "mask_truncated_completions": False, "use_vllm": False,
        "beta": 0.0, "num_iterations": 1, "num_generations": G, "num_generations_eval": G,
        "reward_weights": torch.ones(functions), "multi_objective_aggregation": "sum_then_normalize", "scale_rewards": "group",
        "reward_func_names": [f"f{number}" for number in range(functions)], "reward_funcs": [None] * functions,
        "normalize_advantages": False, "reward_clip_range": None, "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.28, "aux_loss_enabled": False,
        "current_gradient_accumulation_steps": 1, "_entropy_bonus_enabled": False, "use_liger_kernel": False,
        "vllm_importance_sampling_correction": False, "_is_vlm": False, "eos_token_ids": [0],
        "_metrics": {"train": defaultdict(list)}, "_pending_extra_logs": {}, "_pending_metrics": {},
        "_logs": {"prompt": [], "completion": [], "advantages": [], "images": []} | {
            "rewards": defaultdict(list), "extra": defaultdict(list)
        },
    }  # fmt: skip
    mine.__dict__ |= own | options
    return mine


@contextmanager
def _told(error: Any) -> Iterator[None]:
    """Turn what TRL reads and the scripted trainer has not into an error that says so."""
    try:
        yield
    except (AttributeError, KeyError) as found:
        raise error(f"target: TRL {trl.__version__} reads what this adapter has not ({found}); install another TRL") from found
