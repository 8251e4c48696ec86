"""One model, one batch of rollouts: TRL, verl and our own objective keep the same rows and take the same gradient."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed here; make test-verl has an environment for it")
pytest.importorskip("trl", reason="make test-verl installs TRL beside verl")

import trl_world
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM
from verl_cpu.tiny_world import write_world
from verl_cpu.whole_steps import BATCH, G, Steps, run_steps

from recast_sim.signal import ObjectiveConfig, Signal, SignalConfig, construct, plan_objective

pytestmark = [pytest.mark.adapters, pytest.mark.verl, pytest.mark.filterwarnings("ignore::FutureWarning")]
REWARD = "reward.custom_reward_function.path=pkg://verl_cpu.parity_reward"
PLAIN_SGD = (  # without a clip or a KL term: the weights' change is the learning rate times the gradient
    "actor_rollout_ref.actor.optim.optimizer=SGD",
    "actor_rollout_ref.actor.optim.lr=1",
    "actor_rollout_ref.actor.grad_clip=1e9",
    "actor_rollout_ref.actor.use_kl_loss=false",
    "actor_rollout_ref.actor.strategy=fsdp2",
)
Rows = list[tuple[list[int], list[int], float]]  # prompt, completion, advantage


class Batch:
    """The rollouts that verl drew, group by group: (P, G) rows that all have one number of tokens."""

    def __init__(self, record: dict[str, Any]) -> None:
        drawn = {key.rsplit("_", 2)[0]: {} for key in record["drawn"]}
        for key, row in record["drawn"].items():
            uid, slot, _ = key.rsplit("_", 2)
            drawn[uid][int(slot)] = row
        self.groups = [[rows[slot] for slot in range(G)] for rows in drawn.values()]
        assert len(self.groups) == BATCH
        self.prompts = [rows[0]["prompts"].tolist() for rows in self.groups]
        self.anchors = [list(rows[0]["extra_info"]["recast"]["anchors"][0]) for rows in self.groups]
        self.completions = [[row["responses"].tolist() for row in rows] for rows in self.groups]
        self.rewards = [[float(row["rm_scores"].sum()) for row in rows] for rows in self.groups]
        said = [[row["extra_fields"]["reward_extra_info"] for row in rows] for rows in self.groups]
        self.structural = [[float(row["structural"]) for row in rows] for rows in said]
        assert len({len(tokens) for group in self.completions for tokens in group} | set(map(len, self.anchors))) == 1

    def score(self, table: list[list[float]], prompt: int, completion: list[int]) -> float:
        return table[prompt][self.completions[prompt].index(completion)]


def verl_rows(run: Steps) -> Rows:
    rows = run.records[0]["trained"].values()
    return [(row["prompts"].tolist(), row["responses"].tolist(), float(row["rm_scores"].sum())) for row in rows]


def our_rows(batch: Batch, signal: Signal) -> Rows:
    rows = []
    plan = signal.plan
    for row, anchor, number in zip(
        plan.rows_N.tolist(), plan.anchor_N.tolist(), plan.advantages_NL[:, 0].tolist(), strict=True
    ):
        p, g = divmod(row, signal.group_size)
        rows.append((batch.prompts[p], batch.anchors[p] if anchor else batch.completions[p][g], number))
    return rows


def our_gradient(model: Path, rows: Rows, signal: Signal) -> dict[str, Tensor]:
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    logprobs = []
    for prompt, completion, _ in rows:
        ids = torch.tensor([[*prompt, *completion]])
        logprobs.append(lm(ids).logits[0, len(prompt) - 1 : -1].log_softmax(1).gather(1, ids[0, len(prompt) :, None])[:, 0])
    new_NS = torch.stack(logprobs)
    loss = plan_objective(signal.plan, new_NS, new_NS.detach(), None, ObjectiveConfig()).loss
    (loss * signal.plan.normaliser / new_NS.numel()).backward()  # both frameworks divide by the kept tokens here
    return {name: weight.grad for name, weight in lm.named_parameters() if weight.grad is not None}


def trl_step(folder: Path, batch: Batch, constructor: str) -> tuple[Rows, dict[str, Tensor]]:
    """Rows and gradient of TRL's own training loop on the batch's rollouts."""
    names = [f"prompt {p}" for p in range(BATCH)]
    data = Dataset.from_dict({"prompt": names, "anchor": batch.anchors})

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        seen: Counter[str] = Counter()
        places = [(names.index(name), seen.update([name]) or seen[name] - 1) for name in prompts]
        completions = [batch.completions[p][g] for p, g in places]
        return {"prompt_ids": [batch.prompts[p] for p, _ in places], "completion_ids": completions, "logprobs": None}

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        asked = zip(columns["prompts"], completion_ids, strict=True)
        return [batch.score(batch.rewards, names.index(name), tokens) for name, tokens in asked]

    def structural(completion_ids: list[list[int]], examples: list[dict[str, Any]]) -> list[float]:
        asked = zip(examples, completion_ids, strict=True)
        return [batch.score(batch.structural, names.index(row["prompt"]), tokens) for row, tokens in asked]

    run = trl_world.trainer(
        folder,
        constructor=constructor,
        rollout_func=rollout,
        reward_funcs=reward,
        structural=structural,
        train_dataset=data,
        learning_rate=1.0,
        max_completion_length=24,
    )
    kept: list[dict[str, Any]] = []
    scored = run._generate_and_score_completions
    run._generate_and_score_completions = lambda inputs: kept.append(scored(inputs)) or kept[0]
    moved = trl_world.change(run)
    (output,) = kept
    rows = [
        (output["prompt_ids"][n][output["prompt_mask"][n].bool()].tolist(), output["completion_ids"][n].tolist(), float(number))
        for n, number in enumerate(output["advantages"])
        if number
    ]
    return rows, {name: -part for name, part in moved.items()}


@pytest.mark.parametrize("constructor", ["recast", "grpo"])
def test_trl_verl_and_our_objective_are_one(tmp_path: Path, constructor: str) -> None:
    write_world(tmp_path, thought=False)
    size = f"actor_rollout_ref.actor.ppo_mini_batch_size={2 if constructor == 'recast' else BATCH}"
    run = run_steps(tmp_path, tmp_path, constructor, *PLAIN_SGD, REWARD, size, steps=1, beam=True)
    batch = Batch(run.records[0])
    assert {reward for group in batch.rewards for reward in group} == {0.0, 1.0}
    signal = construct(
        constructor,
        torch.tensor(batch.rewards),
        torch.tensor(batch.structural),
        has_anchor_P=torch.ones(BATCH, dtype=torch.bool),
        config=SignalConfig(),
    )
    ours = our_rows(batch, signal)
    theirs, change = trl_step(tmp_path, batch, constructor)
    same_rows(verl_rows(run), ours)
    same_rows(theirs, ours)
    gradient = our_gradient(tmp_path / "model", ours, signal)
    assert max(float(part.abs().max()) for part in gradient.values()) > 1e-2
    for name, part in gradient.items():
        torch.testing.assert_close(run.before[name] - run.after[name], part, rtol=1e-4, atol=1e-6, msg=f"verl: {name}")
        torch.testing.assert_close(change[name], part, rtol=1e-4, atol=1e-6, msg=f"TRL: {name}")


def same_rows(found: Rows, wanted: Rows) -> None:
    """The same rows with the same advantages, in whatever order; rows of advantage 0 may be missing."""
    seen, expected = ({(tuple(p), tuple(c)): a for p, c, a in rows if a} for rows in (found, wanted))
    assert seen.keys() == expected.keys()
    assert seen == pytest.approx(expected, abs=1e-5)
