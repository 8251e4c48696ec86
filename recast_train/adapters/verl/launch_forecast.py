"""What a launch in verl would take, before a node-hour is spent: `launch_openonerec.sh --dry-run`, without verl or a GPU.

It reads the launch's own YAML files and overrides, the data set's length and the checkpoint's config. Values of verl's that
stand in neither are not known here; verl itself checks the whole config when it starts.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
import torch

from recast_sim.bounded import MEGABYTE, read_bounded
from recast_sim.configio import ConfigError
from recast_sim.errors import RecastError
from recast_train.model.build import enable_checkpointing
from recast_train.model.pretrained import unloaded_lm
from recast_train.pipeline.forecast import kept_for_backward, there

PRESETS = Path(__file__).parent / "recast"
_CHOICE = "+recast="
_SEEN = 512  # tokens of the pass that is looked at
_GIGA = 2**30
_TRAINED = 16  # bytes of a parameter: itself, its gradient, AdamW's two averages, each fp32
_SAVED = 12  # of a checkpoint: all but the gradient
_REFERENCE, _SERVED = 4, 2  # bytes of a parameter: fp32 in the reference, bf16 in vLLM
_LOGIT = 4  # bytes of a logit and its gradient, bf16
_HALF = 2  # the actor computes in bf16, and its pass is looked at in fp32
_LINK = re.compile(r"\$\{([\w.]+)\}")


def launch_config(arguments: Sequence[str]) -> dict[str, Any]:
    """The values of a launch by dotted key: those of its `+recast=PRESET`, then its overrides `KEY=VALUE`.

    Raises:
        ConfigError: no preset, or one that is not there; a link `${...}` to a value that is nowhere.
    """
    import yaml

    names = [word.removeprefix(_CHOICE) for word in arguments if word.startswith(_CHOICE)]
    known = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if len(names) != 1 or names[0] not in known:
        raise ConfigError(f"+recast: {names} must be one of {', '.join(known)}")
    found = _file(names[0])
    for word in arguments:
        key, given, value = word.lstrip("+").partition("=")
        if given and not key.startswith("hydra.") and not word.startswith(_CHOICE):
            found[key] = yaml.safe_load(value)
    return {key: _linked(found, value) for key, value in found.items()}


def launch_forecast(config: Mapping[str, Any], card_gib: float, tokens_per_second: float | None = None) -> dict[str, Any]:
    """Sizes of the run: data, steps, bytes on a card, tokens, hours where a card's throughput is stated, disk.

    Args:
        config: as `launch_config` gives it.
        card_gib: memory of a card, GiB.
        tokens_per_second: of one card, over sampling and training together.

    Raises:
        ConfigError: files that are not there.
        TrainError: a checkpoint's folder that is none.
    """
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    cards = config["trainer.n_gpus_per_node"] * config["trainer.nnodes"]
    prompts, batch, n = _prompts(config["data.train_files"]), config["data.train_batch_size"], config[f"{rollout}.n"]
    lm = _model(Path(config["actor_rollout_ref.model.path"]), config["actor_rollout_ref.model.enable_gradient_checkpointing"])
    parameters = sum(table.numel() for table in lm.parameters())
    kept = kept_for_backward(lm, 1, _SEEN) / _SEEN / _HALF
    in_a_pass = config[f"{actor}.ppo_max_token_len_per_gpu"]
    steps = prompts // batch * config["trainer.total_epochs"]
    row = config["data.max_prompt_length"] + config["data.max_response_length"]
    reference = _REFERENCE * parameters / cards if config[f"{actor}.use_kl_loss"] else 0
    served = _SERVED * parameters / config[f"{rollout}.tensor_model_parallel_size"]
    tokens = {"sampled": batch * n * config["data.max_response_length"], "read by the actor": batch * n * row}
    disk = _SAVED * parameters * config["trainer.max_actor_ckpt_to_keep"]
    hours = None if tokens_per_second is None else steps * sum(tokens.values()) / tokens_per_second / cards / 3600
    return {
        "prompts": prompts,
        "steps": steps,
        "parameters": parameters,
        "cards": cards,
        "trained": _TRAINED * parameters / cards,
        "reference": reference,
        "activations": kept * in_a_pass,
        "logits": _LOGIT * lm.config.vocab_size * in_a_pass,
        "served": served,
        "cache": config[f"{rollout}.gpu_memory_utilization"] * card_gib * _GIGA - served,
        "tokens": tokens,
        "hours": hours,
        "disk": disk,
        "free": shutil.disk_usage(there(Path(config["trainer.default_local_dir"]))).free,
    }


def forecast_lines(found: Mapping[str, Any], card_gib: float) -> list[str]:
    """The forecast in words, with what does not fit."""
    gib = {name: f"{value / _GIGA:.3g}" for name, value in found.items() if isinstance(value, int | float)}
    training = sum(found[name] for name in ("trained", "reference", "activations", "logits"))
    lines = [
        f"prompts: {found['prompts']:,}; steps: {found['steps']:,} (where no prompt is too long)",
        f"parameters: {found['parameters']:,} on {found['cards']} cards",
        f"a card while it trains (GiB): {gib['trained']} weights, gradients, AdamW; {gib['reference']} reference; "
        f"{gib['activations']} activations and {gib['logits']} logits of a pass; {training / _GIGA:.3g} of {card_gib:g}",
        f"a card while it samples (GiB): {gib['served']} weights; {gib['cache']} left to vLLM for keys and values",
        f"tokens of a step, at most: {', '.join(f'{count:,} {name}' for name, count in found['tokens'].items())}",
        f"hours: {'set TOKENS_PER_SECOND of a card' if found['hours'] is None else format(found['hours'], '.1f')}",
        f"disk of the checkpoints (GiB): {gib['disk']}, free {gib['free']}",
        "Estimates: without what allocator, CUDA context and communication take (leave a fifth free); the actor's tokens as if "
        "every row were kept, which recast does not.",
    ]
    if found["cache"] <= 0:
        lines.append("warning: the weights do not fit into vLLM's share; raise TP or gpu_memory_utilization")
    if training > card_gib * _GIGA:
        lines.append("warning: training does not fit on a card; take more cards, or offload (actor.fsdp_config)")
    if found["disk"] > found["free"]:
        lines.append("warning: the disk is too small for the checkpoints")
    return lines


def _model(folder: Path, checkpointing: bool) -> Any:
    with torch.device("meta"):
        lm = unloaded_lm(folder, torch.float32, 0.0)
    if checkpointing:
        enable_checkpointing(lm)
    return lm.train()


def _prompts(path: str) -> int:
    if not Path(path).is_file():
        raise ConfigError(f"data.train_files: {path} is not there; write it with recast-train export verl")
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _file(name: str) -> dict[str, Any]:
    """Dotted keys of a preset, over those of the presets that its defaults list names."""
    import yaml

    content = yaml.safe_load(read_bounded(PRESETS / f"{name}.yaml", MEGABYTE, ConfigError))
    below = [other for other in content.pop("defaults", []) if other != "_self_"]
    return reduce(lambda found, other: found | _file(other), below, {}) | _flat(content)


def _flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def _linked(config: Mapping[str, Any], value: Any) -> Any:
    if not isinstance(value, str) or not (links := _LINK.findall(value)):
        return value
    if missing := [key for key in links if key not in config]:
        raise ConfigError(f"{value}: {missing[0]} is set nowhere; set it as {missing[0]}=VALUE")
    if value == f"${{{links[0]}}}":
        return _linked(config, config[links[0]])
    return _LINK.sub(lambda link: str(_linked(config, config[link[1]])), value)


def main() -> None:
    card, speed = float(os.environ.get("CARD_GIB", "80")), os.environ.get("TOKENS_PER_SECOND")
    try:
        found = launch_forecast(launch_config(sys.argv[1:]), card, float(speed) if speed else None)
    except RecastError as error:
        sys.exit(f"error: {error}")
    print("\n".join(forecast_lines(found, card)))


if __name__ == "__main__":
    main()
