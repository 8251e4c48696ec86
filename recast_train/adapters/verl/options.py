"""Options of the sampler, and what they ask of verl's own config: checked before any model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from recast_sim.configio import ConfigError, override
from recast_sim.signal import Constructor, SignalConfig, get_constructor
from recast_sim.signal.declared import declared_width

_AT_HAND = ("logprob_PG", "sids_PGL", "targets_PTL")  # of `Constructor.needs`: what rollouts and data set bring along
_WANT_LOGPROB_OF_ANCHOR = ("clipped", "luffy")
THOUGHT_BEAM = "recast_thought_beam"  # as in thought_beam.yaml
TRIE_PROCESSOR = "recast_train.adapters.vllm.trie_processor:TrieLogitsProcessor"


@dataclass(frozen=True)
class SamplerConfig:
    """`trainer.v1.sampler.sampler_kwargs`.

    Attributes:
        constructor: a registered name; `algorithm.adv_estimator` must be its `estimator_name`.
        signal: the signal module's rules and numbers; verl's `loss_agg_mode` takes the place of its normaliser.
        structural_key: where the reward function's result holds the structural score.
        seed: of random ties and anchor choices.
    """

    constructor: str = "recast"
    signal: SignalConfig = field(default_factory=SignalConfig)
    structural_key: str = "structural"
    seed: int = 0


def read_sampler_config(kwargs: Mapping[str, Any]) -> SamplerConfig:
    """The options as verl passes them. Raises ConfigError naming an unknown key or a value that does not fit."""
    return override(SamplerConfig(), _dotted(kwargs))


def estimator_name(constructor: str) -> str:
    """The name under which verl finds a constructor's advantages: `recast`, and `recast_<constructor>` for the others."""
    return "recast" if constructor == "recast" else f"recast_{constructor}"


def estimator_names(constructor: str) -> list[str]:
    """All of them: `recast_recast` is one too, so that a config can name the constructor once."""
    return list(dict.fromkeys((estimator_name(constructor), f"recast_{constructor}")))


def check_config(config: Any, sampler: SamplerConfig) -> None:
    """Refuse a verl config (of `verl.trainer.main_ppo`) under which the sampler would be wrong, or not worth its name.

    Raises:
        ConfigError: the key, its value, why it does not fit, and the mend.
        SignalError: an unknown constructor.
    """
    constructor = get_constructor(sampler.constructor)
    _check_constructor(constructor, sampler.signal)
    rollout, algorithm, v1 = config.actor_rollout_ref.rollout, config.algorithm, config.trainer.v1
    if v1.trainer_mode != "sync":
        raise ConfigError(f"trainer.v1.trainer_mode: {v1.trainer_mode!r} is not supported by recast's sampler; set it to sync")
    if algorithm.adv_estimator not in estimator_names(constructor.name):
        raise ConfigError(
            f"algorithm.adv_estimator: {algorithm.adv_estimator!r} does not fit the sampler's constructor "
            f"{constructor.name!r}; set it to {estimator_name(constructor.name)}"
        )
    if algorithm.use_kl_in_reward:
        raise ConfigError(
            "algorithm.use_kl_in_reward: true changes the advantages that the sampler hands over; "
            "set it to false and use actor_rollout_ref.actor.use_kl_loss"
        )
    if (algorithm.get("filter_groups") or {}).get("enable"):
        raise ConfigError(
            "algorithm.filter_groups.enable: true has no effect on a custom sampler; set it to false, or use verl's own sampler"
        )
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        raise ConfigError(
            "reward.reward_model.enable: a colocated reward model scores only after the sampler; "
            "use a rule-based reward or set reward.reward_model.enable_resource_pool to true"
        )
    if constructor.off_policy and rollout.calculate_log_probs:
        raise ConfigError(
            f"actor_rollout_ref.rollout.calculate_log_probs: true, but {constructor.name} places anchors, which no policy "
            "sampled: rollout correction would take them for rollouts; set it to false"
        )
    if _wants_logprob(constructor, sampler.signal) and not rollout.calculate_log_probs:
        raise ConfigError(
            f"actor_rollout_ref.rollout.calculate_log_probs: false, but {constructor.name} orders rollouts by their "
            "log-probabilities; set it to true"
        )
    if rollout.agent.default_agent_loop == THOUGHT_BEAM:
        _check_beam(rollout)
    _check_answers(rollout)
    _check_mini_batch(config, declared_width(constructor.width, rollout.n, sampler.signal))


def _check_constructor(constructor: Constructor, signal: SignalConfig) -> None:
    missing = [name for name in constructor.needs if name not in _AT_HAND]
    if missing:
        raise ConfigError(f"sampler_kwargs.constructor: {constructor.name} needs {', '.join(missing)}, unknown to a sampler")
    if constructor.level_wise and signal.anchor_choice != "first":
        raise ConfigError(
            f"sampler_kwargs.signal.anchor_choice: {signal.anchor_choice} does not go with {constructor.name}, which compares "
            "rollouts with the anchor level by level; leave it at first"
        )
    if constructor.redraws:
        raise ConfigError(
            f"sampler_kwargs.constructor: {constructor.name} redraws groups; use verl's own sampler and algorithm.filter_groups"
        )
    if constructor.off_policy and _wants_logprob(constructor, signal):
        raise ConfigError(
            f"sampler_kwargs: {constructor.name} places anchors and is to order rollouts by log-probability, which anchors "
            "lack here; choose another tie_rule"
        )
    if constructor.off_policy and (signal.anchor_choice == "most_likely" or signal.anchor_weighting in _WANT_LOGPROB_OF_ANCHOR):
        raise ConfigError(
            f"sampler_kwargs.signal: anchor_choice {signal.anchor_choice}, anchor_weighting {signal.anchor_weighting}: a "
            "sampler has no model to score anchors; use first or random, and ratio_one or annealed"
        )
    if signal.normaliser != SignalConfig().normaliser:
        raise ConfigError(
            f"sampler_kwargs.signal.normaliser: {signal.normaliser} has no effect in verl; leave it out and set "
            "actor_rollout_ref.actor.loss_agg_mode"
        )


def _check_beam(rollout: Any) -> None:
    where, n = "actor_rollout_ref.rollout", rollout.n
    if rollout.calculate_log_probs:
        raise ConfigError(f"{where}.calculate_log_probs: true, but a beam was not sampled; set it to false")
    if rollout.val_kwargs.n != n:
        raise ConfigError(f"{where}.val_kwargs.n: {rollout.val_kwargs.n}, but a beam has n ({n}) rollouts; set both alike")
    most = ((rollout.get("engine_kwargs") or {}).get("vllm") or {}).get("max_logprobs")
    if rollout.name == "vllm" and (most is None or most < n):
        raise ConfigError(f"{where}.engine_kwargs.vllm.max_logprobs: {most}, but a beam of {n} asks for {n}; set it to {n}")


def _check_answers(rollout: Any) -> None:
    """vLLM ignores `additional_config` where nothing reads it, and a processor that is told nothing holds nobody."""
    where, given = "actor_rollout_ref.rollout.engine_kwargs.vllm", (rollout.get("engine_kwargs") or {}).get("vllm") or {}
    own = (given.get("additional_config") or {}).get("recast") or {}
    loaded = TRIE_PROCESSOR in (given.get("logits_processors") or ())
    if own and not loaded:
        raise ConfigError(
            f"{where}.logits_processors: without {TRIE_PROCESSOR} nothing reads additional_config.recast; set it to "
            f"[{TRIE_PROCESSOR}]"
        )
    if loaded and not Path(file := own.get("answers") or "").is_file():
        mend = "give a file of recast-train export vllm, which every node has"
        raise ConfigError(f"{where}.additional_config.recast.answers: there is no file {file!r}; {mend}")
    if loaded and rollout.agent.default_agent_loop == THOUGHT_BEAM:
        raise ConfigError(
            f"{where}.logits_processors: holds what is sampled, and {THOUGHT_BEAM} searches a beam without it; leave one out"
        )


def _check_mini_batch(config: Any, width: int) -> None:
    """verl pads a step's rows to whole mini-batches of ppo_mini_batch_size * n: a wide mini-batch undoes the selection."""
    n, prompts = config.actor_rollout_ref.rollout.n, config.data.train_batch_size
    size, needed = config.actor_rollout_ref.actor.ppo_mini_batch_size, ceil(prompts * width / n)
    if size > needed:
        raise ConfigError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size: {size} makes mini-batches of {size * n} rows, but at most "
            f"{prompts * width} rows are left of {prompts * n}; set it to {needed} or less"
        )


def _wants_logprob(constructor: Constructor, signal: SignalConfig) -> bool:
    return "logprob_PG" in constructor.needs or signal.tie_rule == "highest_logprob"


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
