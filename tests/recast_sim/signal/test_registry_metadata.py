"""What a constructor declares is what it does, on i.i.d. groups and for every registered name."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from signal_cases import WIDTH_TWO, batches, facts, level_inputs, mask, one_group, tensor

from recast_sim.signal import SignalConfig, construct, list_constructors

pytestmark = pytest.mark.property

EVERY = pytest.mark.parametrize("constructor", list_constructors(), ids=lambda c: c.name)


def width_of(words, G, config):
    """The declared width as a number: "G + 1", "1 + care_negatives", "pods_width", "2"; "G of kept groups" is G at most."""
    terms = words.removesuffix(" of kept groups").split(" + ")
    return sum(G if t == "G" else int(t) if t.isdigit() else getattr(config, t) for t in terms)


def iid_groups(G, p, groups=64, seed=0):
    """Rollouts of a policy over one target and nine misses, with true log-probabilities and structural scores."""
    generator = torch.Generator().manual_seed(seed)
    policy = torch.cat([tensor([p]), (1 - p) * torch.rand(9, generator=generator, dtype=torch.float64).softmax(0)])
    leaf_PG = torch.multinomial(policy.expand(groups, -1), G, replacement=True, generator=generator)
    leaf_PG[0], leaf_PG[1] = 0, 1  # all hits, and none
    scores = torch.cat([tensor([1.0]), torch.linspace(0, 0.5, 9, dtype=torch.float64)])
    hit_P = torch.full((groups,), policy[0].log().item(), dtype=torch.float64)
    return {
        "rewards_PG": (leaf_PG == 0).double(),
        "structural_PG": scores[leaf_PG],
        "has_anchor_P": torch.ones(groups, dtype=torch.bool),
        "logprob_PG": policy.log()[leaf_PG],
        "anchor_logprob_P": hit_P,
        "baseline_P": torch.full((groups,), p, dtype=torch.float64),
        "reference_logprob_PG": policy.log()[leaf_PG] - 0.1,
        "anchor_reference_logprob_P": hit_P - 0.1,
        **level_inputs((leaf_PG == 0).double(), scores[leaf_PG]),
    }


@EVERY
@pytest.mark.parametrize(("G", "p"), [(4, 0.2), (8, 0.05), (9, 0.5)])
def test_the_width_is_reached_and_never_exceeded(constructor, G, p):
    config = SignalConfig(pods_width=3, care_negatives=2, sdpo_negatives=2)
    signal = construct(constructor, **iid_groups(G, p), config=config)
    rows = signal.active_PG.sum(1)
    assert rows.max() == width_of(constructor.width, G, config)
    assert signal.group_size == G + constructor.appends
    assert signal.plan.rows_N.tolist() == [p * signal.group_size + g for p, g in signal.active_PG.nonzero().tolist()]


@EVERY
@facts
@given(batch=batches(padding="none"))
def test_anchors_come_where_they_are_declared(constructor, batch):
    signal = construct(constructor, **batch, config=WIDTH_TWO)
    wanted = {
        "never": torch.zeros_like(signal.repaired_P),
        "all_zero": batch["has_anchor_P"] & (batch["rewards_PG"] == 0).all(1),
        "always": batch["has_anchor_P"],
    }[constructor.anchors]
    assert torch.equal(signal.repaired_P, wanted)
    assert constructor.off_policy == (constructor.anchors != "never")
    assert constructor.off_policy or not signal.plan.anchor_N.any()
    if constructor.appends:
        assert (signal.anchor_slot_P[wanted] == batch["rewards_PG"].shape[1]).all()


@EVERY
@facts
@given(batch=batches(padding="none"))
def test_hits_before_are_the_sampled_ones(constructor, batch):
    signal = construct(constructor, **batch, config=WIDTH_TWO)
    assert torch.equal(signal.hits_before_P, batch["rewards_PG"].long().sum(1))
    assert signal.regime_before == construct("grpo", **batch).regime_before


@EVERY
def test_an_all_zero_group_behaves_as_declared(constructor):
    """Group 0 has no hit; group 1 has one, so that batchwise numbers have a scale."""
    groups = [one_group(0.0, 0.0, 0.0, 0.0), one_group(1.0, 0.0, 0.0, 0.0)]
    batch = {name: torch.cat([g[name] for g in groups]) for name in groups[0]}
    signal = construct(constructor, **batch, config=SignalConfig(pods_width=3))
    numbers, active = signal.advantages_PG[0], signal.active_PG[0]
    anchor = mask(signal.anchor_slot_P, signal.group_size)[0]
    other = construct(constructor, **batch | {"baseline_P": tensor([0.75, 0.25])}, config=SignalConfig(pods_width=3))
    tracks = not torch.equal(other.advantages_PG, signal.advantages_PG)
    nowhere = torch.where(batch["rewards_PG"][..., None] > 0, batch["targets_PTL"], 99)
    far = construct(constructor, **batch | {"sids_PGL": nowhere}, config=SignalConfig(pods_width=3))
    moves_by_level = bool(signal.learnable_P[0]) and not far.learnable_P[0]
    behaves = {
        "0": (numbers == 0).all() and not signal.redraw_P[0],
        "negative": (numbers <= 0).all() and (numbers < 0).any() and not anchor.any() and active.all() and not tracks,
        "positive": (numbers > 0).all() and not anchor.any(),
        "centred": numbers.sum().abs() < 1e-9 and (numbers > 0).any() and not moves_by_level and not anchor.any(),
        "by level": (numbers > 0).any() and moves_by_level and not anchor.any(),
        "-baseline": (numbers == numbers[0]).all() and (numbers != 0).all() and tracks,
        "repaired": (numbers[anchor] > 0).all() and (numbers[~anchor] <= 0).all() and (numbers < 0).any() and anchor.any(),
        "target": (numbers[anchor] > 0).all() and anchor.any() and (numbers[~anchor] == 0).all(),
        "rescued": (numbers > 0).sum() == 1 and (numbers < 0).any() and not anchor.any(),
        "redrawn": signal.redraw_P[0] and not active.any(),
    }
    assert behaves.pop(constructor.all_zero)
    assert not any(behaves.values()), "the words tell the behaviours apart"


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_advantages_and_weights_keep_the_rewards_precision(constructor, dtype):
    batch = {name: v.to(dtype) if v.is_floating_point() else v for name, v in iid_groups(4, 0.2).items()}
    signal = construct(constructor, **batch, config=SignalConfig(pods_width=3))
    assert signal.advantages_PG.dtype == signal.plan.weights_N.dtype == dtype
    assert signal.advantages_PG.isfinite().all()


@EVERY
def test_redraws_are_asked_for_only_where_declared(constructor):
    signal = construct(constructor, **iid_groups(4, 0.2), config=SignalConfig(pods_width=3))
    assert signal.redraw_P.any() == constructor.redraws


def test_papers_md_has_one_row_a_constructor_with_its_source_and_names_real_parameters():
    lines = (Path(__file__).parents[3] / "PAPERS.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = [row for row in table if row[0] not in ("name", "---")]
    assert {row[0]: row[1] for row in rows} == {c.name: c.source for c in list_constructors()}
    assert len(rows) == len(list_constructors())
    defaults = {field.name: field.default for field in fields(SignalConfig)}
    for row in rows:
        for word in row[4].replace(";", ",").split(", "):
            name, _, value = word.partition(" ")
            if "_" in name and name in defaults:
                assert float(value.split()[0]) == defaults[name], f"{row[0]}: {word}"


def test_papers_md_names_functions_that_exist():
    lines = (Path(__file__).parents[3] / "PAPERS.md").read_text().splitlines()
    for line in lines:
        if line.startswith("|") and not line.startswith(("| name", "|---")):
            for word in line.split("|")[4].replace(",", " ").split():
                if "." in word:
                    module, function = word.split(".")
                    assert hasattr(importlib.import_module(f"recast_sim.signal.steps.{module}"), function), word
