"""verl's replay buffer with a selection: whole groups in, the rows of the update plan out.

`trainer.v1.sampler.custom_sampler.path=pkg://recast_train.adapters.verl.sampler`, `...name=RecastReplayBuffer`.
Axis letters: R rows of the sampled groups, N rows that are kept, S response tokens.
"""
# pyright: reportMissingImports=false
# verl and what it brings live in an environment of their own (`make test-verl`)

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict
from torch import Tensor
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from recast_sim.runs import derive_seed
from recast_sim.signal import SignalError, get_constructor
from recast_train.adapters.flat_rows import KeptRows, select_rows, spread_levels
from recast_train.adapters.verl.anchors import AnchorTokens, anchor_row, row_lengths
from recast_train.adapters.verl.group_dump import FIELDS, write_groups
from recast_train.adapters.verl.handover import mark
from recast_train.adapters.verl.options import check_config, read_sampler_config

Row = dict[str, Any]
_SCORED = ("rm_scores", "extra_fields", "extra_info", "responses", "response_mask", "rollout_log_probs")  # all but prompts


class RecastReplayBuffer(ReplayBuffer):
    """Scores, repairs and selects what verl sampled, before log-probabilities are computed (arXiv 2604.22169, in verl).

    Rows outside the plan leave the queue; an anchor takes its slot's key. A kept row's score becomes its coefficient and its
    uid a group of its own, for the estimator of the same constructor. Without any row to keep, one rollout stays with
    coefficient 0. Validation passes through untouched. The metrics returned describe the whole groups, which verl's own
    metrics no longer see; `trainer.rollout_data_dir` gets the whole groups, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ConfigError or SignalError where verl's config does not fit (`check_config`)."""
        super().__init__(*args, **kwargs)
        options = self.sampler_kwargs
        self.recast = read_sampler_config(OmegaConf.to_container(options, resolve=True) if options is not None else {})
        self.constructor = get_constructor(self.recast.constructor)
        self._trainer = getattr(self.refill_fn, "__self__", None)  # verl passes a method of its trainer, which holds the config
        self.rollouts: Path | None = None
        if self._trainer is not None:
            check_config(self._trainer.config, self.recast)
            self.rollouts = _taken_over(self._trainer.config)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "val":
            return batch, metrics
        generator = torch.Generator().manual_seed(derive_seed(self.recast.seed, "signal", global_steps))
        rows = _read(batch.keys, partition_id, _SCORED)
        if "rm_scores" not in rows[0]:
            raise SignalError("rm_scores: the rollouts have no rewards yet; give verl a reward function (docs/verl.md)")
        if self.rollouts is not None:
            self._dump(self.rollouts, global_steps, batch.keys, partition_id)
        kept = self._select(batch.keys, rows, generator)
        chosen, own = self._write(batch, rows, kept, generator)
        return chosen, {**metrics, **own, "recast/prompts_lost": batch_size - len(kept.groups)}

    def _dump(self, folder: Path, step: int, keys: list[str], partition_id: str) -> None:
        assert self._trainer is not None
        decode = partial(self._trainer.tokenizer.decode, skip_special_tokens=True)
        write_groups(folder, step, keys, _read(keys, partition_id, FIELDS), decode)

    def _select(self, keys: list[str], rows: list[Row], generator: torch.Generator) -> KeptRows:
        places = [key.rsplit("_", 2) for key in keys]
        if any(output != "0" for _, _, output in places):
            raise SignalError("rollouts: a session has several outputs; recast's sampler takes agents of one output")
        return select_rows(
            self.constructor,
            [uid for uid, _, _ in places],
            torch.stack([row["rm_scores"].sum() for row in rows]),
            [self._structural(row) for row in rows] if self.constructor.structural else None,
            has_anchor_R=[_has_anchor(row) for row in rows] if self.constructor.off_policy else None,
            logprob_R=_logprobs(rows),
            **(_codes(rows) if self.constructor.level_wise else {}),
            slot_R=[int(session) for _, session, _ in places],
            config=self.recast.signal,
            generator=generator,
        )

    def _structural(self, row: Row) -> float:
        name = self.recast.structural_key
        scores = row["extra_fields"].get("reward_extra_info", {})
        if name not in scores:
            raise SignalError(
                f"structural_key: the reward function's result has {sorted(scores)}, no {name!r}, by which "
                f"{self.constructor.name} orders rollouts; use recast_train.adapters.verl.reward, or return it"
            )
        return float(scores[name])

    def _write(
        self, batch: KVBatchMeta, rows: list[Row], kept: KeptRows, generator: torch.Generator
    ) -> tuple[KVBatchMeta, dict[str, Any]]:
        """Put what changes into the queue, take the other rows out, and say what is left and what was drawn."""
        changes: dict[str, Row] = {}
        anchors: dict[str, Row] = {}
        tags: dict[str, dict[str, Any]] = {}
        for place, r in enumerate(kept.row_N.tolist()):
            if kept.anchor_N[place]:
                key, row, tag = self._anchor(batch, rows, kept, place, generator)
                tags[key] = tag
                anchors[key] = {**row, **self._handed_over(key, row, kept.coefficient_NL[place])}
            else:
                key = batch.keys[r]
                tags[key] = batch.tags[r]
                changes[key] = self._handed_over(key, rows[r], kept.coefficient_NL[place])
        if not tags:
            key = batch.keys[0]
            tags[key] = batch.tags[0]
            changes[key] = self._handed_over(key, rows[0], torch.zeros(1))
        for fields in filter(None, (changes, anchors)):
            table = list_of_dict_to_tensordict(list(fields.values()))
            tq.kv_batch_put(list(fields), batch.partition_id, table, [tags[key] for key in fields])
        if dropped := [key for key in batch.keys if key not in tags]:
            tq.kv_clear(dropped, batch.partition_id)
        chosen = KVBatchMeta(
            partition_id=batch.partition_id, keys=list(tags), tags=list(tags.values()), extra_info=batch.extra_info
        )
        return chosen, _metrics(kept, rows, list(tags.values()))

    def _handed_over(self, key: str, row: Row, coefficient_L: Tensor) -> Row:
        width = len(row["responses"])
        scores_S = torch.zeros(width)
        if len(coefficient_L) == 1:
            scores_S[-1] = coefficient_L[0]
        else:
            first = AnchorTokens.of(row["extra_info"]).sid(row["responses"])[1]
            scores_S = spread_levels(coefficient_L[None], torch.tensor([first]), width)[0]
        return {"uid": mark(self.constructor.name, key), "rm_scores": scores_S}

    def _anchor(
        self, batch: KVBatchMeta, rows: list[Row], kept: KeptRows, place: int, generator: torch.Generator
    ) -> tuple[str, Row, dict[str, Any]]:
        """Key, row and tag of an anchor, behind the thought of the rollout that it replaces, or else of the first sibling
        that finished one."""
        group, slot, own = int(kept.group_N[place]), int(kept.slot_N[place]), int(kept.row_N[place])
        siblings = [r for r in (own, *kept.row_PG[group].tolist()) if r >= 0 and _has_anchor(rows[r])]
        (like,) = _read([batch.keys[siblings[0]]], batch.partition_id)
        anchors = AnchorTokens.of(like["extra_info"])
        answer_S, thought_S = anchors.choose(self.recast.signal.anchor_choice, generator), anchors.thought(like["responses"])
        assert thought_S is not None  # _has_anchor has seen it
        row = anchor_row(like, torch.cat([thought_S, answer_S]))
        if "session_id" in row:
            row["session_id"] = slot
        return f"{kept.groups[group]}_{slot}_0", row, {**batch.tags[siblings[0]], **row_lengths(row)}


def _taken_over(config: Any) -> Path | None:
    """The folder for rollouts that verl's config names, which verl will no more write: only kept rows are left for it."""
    folder = config.trainer.get("rollout_data_dir")
    if not folder:
        return None
    with open_dict(config):
        config.trainer.rollout_data_dir = None
    return Path(folder)


def _read(keys: list[str], partition_id: str, fields: tuple[str, ...] = ()) -> list[Row]:
    """Rows of the queue, with those of `fields` that all of them have; without `fields` whole."""
    table = tq.kv_batch_get(keys, partition_id, list(fields) or None)
    names = list(table.keys())
    return [{name: row[name] for name in names} for row in table]


def _codes(rows: list[Row]) -> dict[str, Tensor]:
    """Codes of the rows' SIDs and of their targets, as token ids."""
    anchors = [AnchorTokens.of(row["extra_info"]) for row in rows]
    sids = [own.sid(row["responses"])[0] for own, row in zip(anchors, rows, strict=True)]
    targets, levels = [own.targets() for own in anchors], len(sids[0])
    width = max([1, *map(len, targets)])
    padded = [[*own, *([[-1] * levels] * (width - len(own)))] for own in targets]
    return {"sids_RL": torch.tensor(sids), "targets_RTL": torch.tensor(padded)}


def _has_anchor(row: Row) -> bool:
    anchors = AnchorTokens.of(row.get("extra_info"))
    return len(anchors.answers) > 0 and anchors.thought(row["responses"]) is not None


def _logprobs(rows: list[Row]) -> Tensor | None:
    if "rollout_log_probs" not in rows[0]:
        return None
    return torch.stack([(row["rollout_log_probs"] * row["response_mask"]).sum() for row in rows])


def _metrics(kept: KeptRows, rows: list[Row], tags: list[dict[str, Any]]) -> dict[str, float]:
    signal = kept.signal
    found = {
        "reward/mean": float(torch.stack([row["rm_scores"].sum() for row in rows]).mean()),
        "learnable": float(signal.learnable_P.float().mean()),
        "repaired": float(signal.repaired_P.float().mean()),
        "rows_drawn": float(len(rows)),
        "rows_kept": float(len(tags)),
        "response_tokens_drawn": float(sum(len(row["responses"]) for row in rows)),
        "response_tokens_kept": float(sum(tag["response_len"] for tag in tags)),
    }
    for when, regime in (("before", signal.regime_before), ("after", signal.regime_after)):
        found |= {f"{when}/{name}": share for name, share in asdict(regime).items()}
    return {f"recast/{name}": value for name, value in found.items()}
