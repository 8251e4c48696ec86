"""RecastGRPOTrainer in TRL's own training loop on CPU: rows, gradients, loss types, accumulation, iterations, KL, processes."""

import itertools
from pathlib import Path
from typing import Any

import engine_world
import polars as pl
import pytest
import torch
import trl_world as world
from transformers import AutoModelForCausalLM, AutoTokenizer

from recast_sim.signal import Signal, SignalConfig, construct
from recast_train.adapters.trl import SidLevels
from recast_train.model import TrainError

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore::FutureWarning")]  # transformers on its own options

G = world.G
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo")
TRLS = SignalConfig(std_eps=1e-4)  # TRL's own constant


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    world.write_checkpoint(folder)
    return folder


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], moved: bool = True) -> None:
    assert (max(float(part.abs().max()) for part in expected.values()) > 1e-3) is moved
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-4, atol=1e-6, msg=name)


def oracle_change(folder: Path, signal: Signal, script: world.Script, loss_type: str, rate: float = 0.1) -> dict[str, Any]:
    """-rate times the gradient of the sum over a plan's rows of weight * advantage * token loss / normaliser, row by row.

    A completion ends with its SID; tokens before it have the first level's number.
    """
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer, plan, rows = AutoTokenizer.from_pretrained(folder / "model"), signal.plan, []
    for row, anchor in zip(plan.rows_N.tolist(), plan.anchor_N.tolist(), strict=True):
        p, g = divmod(row, signal.group_size)
        completion = world.SIDS.encode(world.CODES[p]) if anchor else script(p, g)
        rows.append((tokenizer(world.PROMPTS[p])["input_ids"], completion))
    N, tokens = len(rows), sum(len(completion) for _, completion in rows)
    for (prompt, completion), A_L, w in zip(rows, plan.advantages_NL.expand(-1, 3), plan.weights_N.tolist(), strict=True):
        A_S = torch.cat([A_L[:1].expand(len(completion) - 3), A_L])
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.log_softmax(1)[torch.arange(len(completion)), completion]
        normaliser = {"grpo": N * len(completion), "dr_grpo": N * 8, "bnpo": tokens, "dapo": tokens}[loss_type]
        (-w * (A_S * logprobs).sum() / normaliser).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: -rate * gradient for name, gradient in gradients.items() if gradient is not None}


def signal_of(constructor: str, script: world.Script, config: SignalConfig | None = None, anchors: int = 4) -> Signal:
    """The signal of four groups under a script; the last `anchors` prompts have one. Scores by comparison of tokens."""
    shared = []
    for p in range(4):
        pairs = [zip(script(p, g)[-3:], world.SIDS.encode(world.CODES[p]), strict=True) for g in range(G)]
        shared.append([len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], row))) for row in pairs])
    structural = [[(0.0, 0.01, 0.1, 1.0)[levels] for levels in group] for group in shared]
    rewards = [[float(levels == 3) for levels in group] for group in shared]
    sids = [[script(p, g)[-3:] for g in range(G)] for p in range(4)]
    targets = [[world.SIDS.encode(world.CODES[p])] for p in range(4)]
    has_anchor = [p >= 4 - anchors for p in range(4)]
    return construct(
        constructor, rewards, structural, has_anchor_P=has_anchor, sids_PGL=sids, targets_PTL=targets, config=config
    )


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "recast"])
def test_old_reference_and_actor_passes_see_the_kept_rows_alone(folder: Path, stock: bool, capsys: Any) -> None:
    run = world.trainer(folder, stock=stock, beta=0.1, num_iterations=2, max_steps=2)
    with world.counted_rows(run) as rows:
        run.train()
    with capsys.disabled():
        print(f"\n{'stock' if stock else 'recast'}: 4 groups of {G}, 2 iterations: rows of {dict(rows)}")
    width = 4 * (G if stock else 2)
    assert rows == {"old": width, "reference": width, "actor": 2 * width}


def test_all_zero_groups_train_with_recast_and_not_with_grpo(folder: Path) -> None:
    assert not any(part.any() for part in world.change(world.trainer(folder, world.misses, stock=True)).values())
    run = world.trainer(folder, world.misses, max_steps=20)
    before = hits(run)
    run.train()
    assert hits(run) > before + 1.0


def hits(run: Any) -> float:
    """Mean log-probability of the targets, nats."""
    found = []
    for prompt, target in zip(world.PROMPTS[:4], world.CODES, strict=False):
        ids, sid = run.processing_class(prompt)["input_ids"], world.SIDS.encode(target)
        with torch.no_grad():
            logits = run.model(input_ids=torch.tensor([[*ids, *sid]])).logits[0, len(ids) - 1 : -1]
        found.append(float(logits.log_softmax(1)[torch.arange(3), sid].sum()))
    return sum(found) / len(found)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_gradient_is_the_plans(folder: Path, loss_type: str) -> None:
    """Prompt 0 has no anchor and no hit: a group without signal, whose absence no normaliser may see."""
    run = world.trainer(folder, world.uneven, loss_type=loss_type, **world.NO_ANCHOR)
    signal = signal_of("recast", world.uneven, anchors=3)
    assert len(signal.plan.rows_N) == 6
    assert_same(world.change(run), oracle_change(folder, signal, world.uneven, loss_type))


@pytest.mark.parametrize(
    ("constructor", "config"),
    [
        ("recast", SignalConfig(anchor_weighting="annealed", w_minus=0.3)),
        ("grpo_anchor", SignalConfig()),
        ("visurf", SignalConfig()),
        ("sft", SignalConfig()),
        ("boundary_only", SignalConfig()),
    ],
)
def test_the_gradient_of_other_constructors_and_weights(folder: Path, constructor: str, config: SignalConfig) -> None:
    run = world.trainer(folder, constructor=constructor, signal_config=config)
    assert_same(world.change(run), oracle_change(folder, signal_of(constructor, world.one_hit, config), world.one_hit, "dapo"))


@pytest.mark.parametrize("script", [world.one_hit, world.uneven], ids=["alike", "uneven"])
@pytest.mark.parametrize("constructor", ["recast_masked", "recast_diverging", "sapo", "sibling"])
def test_the_gradient_of_credit_by_level(folder: Path, constructor: str, script: world.Script) -> None:
    run = world.trainer(folder, script, constructor=constructor, levels=SidLevels(world.SIDS))
    signal = signal_of(constructor, script)
    assert signal.plan.level_wise
    assert len(signal.plan.advantages_NL.unique(dim=1)[0]) > 1 or constructor == "sapo"
    assert_same(world.change(run), oracle_change(folder, signal, script, "dapo"))


def test_credit_by_level_needs_to_be_told_the_levels(folder: Path) -> None:
    with pytest.raises(TrainError, match=r"levels: is missing, and sapo reads sids_PGL, targets_PTL; give a function"):
        world.trainer(folder, constructor="sapo")


def test_dft_in_trl_reads_the_anchors_codes(folder: Path) -> None:
    """One step of supervision, each code weighed by its own probability: oracle by hand."""
    run = world.trainer(folder, constructor="dft", levels=SidLevels(world.SIDS))
    logprob_PL = []
    for prompt, target in zip(world.PROMPTS[:4], world.CODES, strict=False):
        ids, sid = run.processing_class(prompt)["input_ids"], world.SIDS.encode(target)
        with torch.no_grad():
            logits = run.model(input_ids=torch.tensor([[*ids, *sid]])).logits[0, len(ids) - 1 : -1]
        logprob_PL.append(logits.log_softmax(1)[torch.arange(3), sid])
    rewards = torch.zeros(4, G)
    signal = construct("dft", rewards, has_anchor_P=[True] * 4, anchor_logprob_PL=torch.stack(logprob_PL))
    assert_same(world.change(run), oracle_change(folder, signal, world.one_hit, "dapo"))


def test_anchors_of_several_lengths_are_weighed_by_their_probability(folder: Path) -> None:
    """tempered_anchor's only row of a group is the anchor times pi(anchor), here at temperature 0.5; one prompt has none."""
    anchors = [None, [3, 4], [5], [6, 7, 8]]
    given = {
        "anchor": lambda example: anchors[world.PROMPTS.index(example["prompt"])],
        "structural": None,
        "train_dataset": world.examples().remove_columns(["targets", "anchor"]),
        "reward_funcs": lambda completions, **_: [0.0] * len(completions),
    }
    run = world.trainer(folder, constructor="tempered_anchor", temperature=0.5, **given)
    model, expected = AutoModelForCausalLM.from_pretrained(folder / "model"), []
    for prompt, anchor in list(zip(world.PROMPTS, anchors, strict=False))[1:]:
        ids = run.processing_class(prompt)["input_ids"]
        logits = model(torch.tensor([[*ids, *anchor]])).logits[0, len(ids) - 1 : -1] / 0.5
        expected.append(logits.log_softmax(1)[torch.arange(len(anchor)), anchor].sum().exp().item())
    run.train()
    batch = run._buffered_inputs[0]
    assert batch["advantages"].tolist() == pytest.approx(expected, rel=1e-4)
    assert batch["completion_mask"].sum(1).tolist() == [2, 1, 3]


@pytest.mark.parametrize("loss_type", [*LOSSES, "cispo", "sapo", "luspo", "vespo"])
def test_grpo_here_is_trls_grpo(folder: Path, loss_type: str) -> None:
    """With two iterations, so that old log-probabilities and the clip matter, and a KL term after the first."""
    options = {"loss_type": loss_type, "beta": 0.1, "num_iterations": 2, "max_steps": 2, "learning_rate": 0.02}
    ours = world.change(world.trainer(folder, world.uneven, constructor="grpo", signal_config=TRLS, **options))
    assert_same(ours, world.change(world.trainer(folder, world.uneven, stock=True, **options)))


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(("size", "steps", "rows"), [(2 * G, 2, 8), (G, 4, 8), (2, 8, 16)])
def test_accumulation_changes_nothing(folder: Path, loss_type: str, size: int, steps: int, rows: int) -> None:
    """Three pairs in 2, 4 or 8 micro-batches of equal length, filled with masked pairs: floored parts would lose some."""
    micro = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
    run = world.trainer(folder, world.uneven, loss_type=loss_type, **micro, **world.NO_ANCHOR)
    with world.counted_rows(run) as counted:
        found = world.change(run)
    assert counted == {"actor": rows}
    assert_same(found, oracle_change(folder, signal_of("recast", world.uneven, anchors=3), world.uneven, loss_type))


def test_bnpo_is_a_mean_over_micro_batches_that_hold_a_kept_row(folder: Path) -> None:
    """Three pairs of equal length in eight micro-batches: each counts a third."""
    micro = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    run = world.trainer(folder, loss_type="bnpo", **micro, **world.NO_ANCHOR)
    assert_same(world.change(run), oracle_change(folder, signal_of("recast", world.one_hit, anchors=3), world.one_hit, "bnpo"))


def test_a_pair_makes_its_optimiser_step_together(folder: Path) -> None:
    """One generation batch for four optimiser steps: each sees one whole pair, with log-probabilities from before them."""
    micro = {"per_device_train_batch_size": G, "steps_per_generation": 4, "max_steps": 4}
    run = world.trainer(folder, **micro)
    with world.counted_rows(run) as counted:
        run.train()
    assert counted == {"old": 8, "actor": 8}
    for batch in run._buffered_inputs:
        assert sorted(batch["advantages"].tolist()) == [-1, 1]
        assert batch["prompt_ids"][0].tolist() == batch["prompt_ids"][1].tolist()
        assert batch["old_per_token_logps"].shape == (2, 3)


def test_a_batch_without_any_signal_moves_nothing(folder: Path) -> None:
    run = world.trainer(folder, world.misses, beta=0.1, anchor=lambda example: None)
    with world.counted_rows(run) as counted:
        found = world.change(run)
    assert counted == {"reference": 1, "actor": 1}
    assert_same(found, {name: torch.zeros_like(part) for name, part in found.items()}, moved=False)


@pytest.mark.slow
def test_two_processes_equal_one(folder: Path) -> None:
    """Every case in one launch: fillers on one process only, an appended row, batch statistics, decoding under the trie."""
    expected = world.spread(folder, ranks=1)
    code, printed, found = engine_world.launch(folder, "spread", script=world.__file__)
    assert code == 0, printed
    for name, change in expected.items():
        assert max(map(abs, change)) > 1e-3, name
        for rank in found:
            torch.testing.assert_close(torch.tensor(rank[name]), torch.tensor(change), rtol=1e-5, atol=1e-5, msg=name)


def test_logs_keep_every_rollout_and_its_raw_reward(folder: Path) -> None:
    run = world.trainer(folder, log_completions=True, logging_strategy="steps", logging_steps=1)
    run.train()
    log = run.state.log_history[0]
    assert log["reward"] == pytest.approx(2 / 16)  # as sampled, without the anchors
    assert (log["recast/learnable"], log["recast/repaired"], log["recast/kept"]) == (1.0, 0.5, 0.5)
    table = pl.read_parquet(folder / "run" / "completions" / "completions_00001.parquet")
    assert len(table) == 16
    assert table["reward"].to_list() == [float(p % 2 and g == 1) for p in range(4) for g in range(G)]
    assert table["advantage"].abs().sum() == 6  # two pairs, and two negatives whose anchors took another rollout's place
    names = [" ".join(run.processing_class.convert_ids_to_tokens(world.one_hit(p, g))) for p in range(4) for g in range(G)]
    assert [text.split() for text in table["completion"].to_list()] == [name.split() for name in names]


def test_evaluation_is_trls(folder: Path) -> None:
    runs = [world.trainer(folder, stock=stock, per_device_eval_batch_size=2 * G) for stock in (True, False)]
    stock, ours = (run.evaluate(world.examples()) for run in runs)
    assert stock["eval_reward"] == pytest.approx(2 / 16)
    same = ("eval_loss", "eval_reward", "eval_reward_std", "eval_frac_reward_zero_std", "eval_entropy")
    assert [ours[name] for name in same] == [stock[name] for name in same]
