"""Passes of bounded size: what one holds, and that cutting changes no result."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor
from updating import update

from recast_sim.signal import ObjectiveConfig, construct
from recast_train.engine import Engine, split_plan
from recast_train.model import SidModel, TrainError
from recast_train.model.shared_prefixes import prefix_tree
from recast_train.rl.micro_batches import micro_batches
from recast_train.rl.rl_config import RlConfig
from recast_train.rl.update import Passes

P, G = 6, 6


def watched(lm: SidModel, shapes: list[torch.Size], tokens: Tensor, *rest: Any) -> Tensor:
    """A forward pass that leaves its (prompts, positions)."""
    shapes.append(tokens.shape)
    return SidModel.hidden(lm, tokens, *rest)


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 60), st.integers(0, 999))
def test_a_pass_holds_whole_prompts_within_the_limit(prompts: int, rows: int, limit: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompt_N, tokens_NL = torch.from_numpy(rng.integers(0, prompts, rows)), torch.from_numpy(rng.integers(0, 3, (rows, 2)))
    length_P, passes = torch.from_numpy(rng.integers(1, 12, prompts)), []
    for part in micro_batches(length_P, prefix_tree(prompt_N, tokens_NL), limit):
        tree = prefix_tree(prompt_N[part], tokens_NL[part])
        positions = len(tree.used_P) * int(length_P[tree.used_P].max() + tree.size_P.max())
        assert positions <= limit or len(tree.used_P) == 1
        assert part.tolist() == sorted(part.tolist())
        passes.append((set(tree.used_P.tolist()), part))
    assert sorted(torch.cat([part for _, part in passes]).tolist()) == list(range(rows))
    assert sum(len(held) for held, _ in passes) == len(prompt_N.unique())  # no prompt is in two
    assert len(passes) == 1 or limit < 8 * (11 + 12)


@pytest.mark.parametrize(("kl", "updates", "mini_batches"), [(0.0, 1, 1), (0.1, 1, 1), (0.1, 2, 2)])
@pytest.mark.parametrize("limit", [1, 40, 10**6])
def test_cut_passes_are_the_same_update(
    kl: float, updates: int, mini_batches: int, limit: int, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, catalog = np.random.default_rng(0), tiny_catalog()
    structural = rng.choice([0.0, 0.01, 0.1], (P, G))
    plan = construct("recast", np.zeros((P, G)), structural, has_anchor_P=torch.ones(P, dtype=torch.bool)).plan
    leaf_N = torch.from_numpy(rng.integers(0, catalog.leaves, len(plan.rows_N)))
    prompts, reference = tiny_prompts(catalog, P), tiny_model(catalog, 9, scale=3.0)
    passes, found = Passes(ObjectiveConfig(kl=kl), updates, mini_batches), []
    for bound in (0, limit):
        model, shapes = tiny_model(catalog, scale=3.0), []
        for lm in (model, reference):
            monkeypatch.setattr(lm, "hidden", partial(watched, lm, shapes))
        optimiser, rows = torch.optim.SGD(model.parameters(), lr=0.1), split_plan(plan, G, slice(0, P))
        log = update(engine, model, reference, prompts, rows, leaf_N, G, optimiser, passes, limit=bound)
        found.append((log, model, shapes))
    (expected, one, whole), (log, other, shapes) = found
    names = ("loss", "gradient_norm", "kl", "clip_share", "actor_tokens", "optimiser_steps", "flops")
    assert [log[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-5, abs=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(shape[0] == 1 or shape.numel() <= limit for shape in shapes)
    assert len(shapes) >= len(whole) == updates * mini_batches + (updates * mini_batches > 1) + (kl > 0)


def test_a_loss_that_is_not_finite_is_refused_in_any_pass(engine: Engine) -> None:
    catalog = tiny_catalog()
    model, before = tiny_model(catalog), tiny_model(catalog)
    plan = construct("recast", np.eye(P, G), np.eye(P, G), has_anchor_P=torch.ones(P, dtype=torch.bool)).plan
    broken = replace(plan, advantages_NL=plan.advantages_NL.index_fill(0, torch.tensor([0]), torch.inf))
    optimiser, leaf_N = torch.optim.SGD(model.parameters(), lr=1.0), torch.zeros_like(plan.rows_N)
    rows, passes = split_plan(broken, G, slice(0, P)), Passes(ObjectiveConfig())
    with pytest.raises(TrainError, match="lower learning_rate"):
        update(engine, model, None, tiny_prompts(catalog, P), rows, leaf_N, G, optimiser, passes, limit=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(TrainError, match=r"RlConfig\.micro_batch_tokens: -1 must be at least 0"):
        RlConfig(micro_batch_tokens=-1)
