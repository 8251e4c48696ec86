"""The model: vocabulary, left padding that changes nothing, and the softmax over legal children."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sid_world import TINY, enumerated, histories, tiny_catalog, tiny_model, tiny_prompts

from recast_sim.catalog import Catalog
from recast_train.model import (
    BOS_TOKEN,
    PAD_TOKEN,
    SPECIAL_TOKENS,
    ModelConfig,
    TrainError,
    build_model,
    sid_model,
    tokenise_histories,
)


def test_tokens_by_hand() -> None:
    catalog = tiny_catalog()
    found = tokenise_histories(np.array([[-1, 3], [-1, -1], [7, 3]]), catalog)
    start = SPECIAL_TOKENS + np.array([0, 4, 7])
    three, seven = (catalog.codes_IL[item] + start for item in (3, 7))
    pad = [PAD_TOKEN] * 3
    assert found.tokens_PT.tolist() == [[*pad, BOS_TOKEN, *three], [*pad, *pad, BOS_TOKEN], [BOS_TOKEN, *seven, *three]]
    assert found.length_P.tolist() == [4, 1, 7]
    assert found.positions_PT[0].tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_levels_have_their_own_tokens() -> None:
    catalog = tiny_catalog()
    model = build_model(catalog, TINY, 0)
    assert [int(tokens[0]) for tokens in model.vocabulary.level_tokens] == [2, 6, 9]
    assert model.lm.lm_head.weight.shape[0] == 2 + 4 + 3 + 5


@pytest.mark.parametrize("catalog_sizes", [(4, 3, 5), (6, 4), (20,)])
def test_padding_and_masks_change_no_probability(catalog_sizes: tuple[int, ...]) -> None:
    catalog = tiny_catalog(18, catalog_sizes)
    model, prompts = tiny_model(catalog), tiny_prompts(catalog, 6)
    with torch.no_grad():
        hidden = model.hidden(prompts.tokens_PT, prompts.positions_PT, prompts.mask())[:, -1]
        first_PN = model.child_logprobs(hidden, 0, torch.zeros(6, dtype=torch.int64)).numpy()
    exact_PY = enumerated(model, prompts)[:, :, 0]
    assert np.allclose(first_PN[:, catalog.leaf_nodes[:, 0]], exact_PY, atol=1e-4)
    assert np.ptp(exact_PY[0]) > 0.1


def test_padding_columns_shared_by_all_are_cut() -> None:
    prompts = tokenise_histories(np.array([[-1, -1, 3], [-1, -1, -1]]), tiny_catalog())
    assert prompts.take(torch.tensor([0, 1])).tokens_PT.shape == (2, 4)
    assert prompts.take(torch.tensor([1])).tokens_PT.tolist() == [[BOS_TOKEN]]


def test_children_sum_to_one_and_padding_has_none() -> None:
    catalog = tiny_catalog()
    model = tiny_model(catalog)
    node = torch.arange(model.nodes[1])
    logprobs = model.child_logprobs(torch.randn(len(node), 16), 1, node)
    legal = torch.from_numpy(catalog.children(1)) >= 0
    assert torch.allclose(logprobs.exp().sum(1), torch.ones(len(node)))
    assert torch.equal(torch.isfinite(logprobs), legal)
    assert not bool(legal.all())


def test_logits_child_by_child_equal_those_of_a_whole_level(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(tiny_catalog(sizes=(4, 3, 100)))  # 16 dimensions times up to 4 children are fewer than 100 codes
    node = torch.arange(model.nodes[2])
    hidden = torch.randn(len(node), 16)
    assert 1 < model.widest[2] <= 100 // 16
    found = []
    for few in (1, 10**6):
        monkeypatch.setattr(sid_model, "FEW", few)
        logprobs = model.child_logprobs(hidden, 2, node, 0.7)
        (gradient,) = torch.autograd.grad(logprobs[torch.isfinite(logprobs)].square().sum(), model.lm.lm_head.weight)
        found.append((logprobs, gradient))
    assert torch.allclose(*(logprobs for logprobs, _ in found), atol=1e-5)
    assert torch.allclose(*(gradient for _, gradient in found), atol=1e-3)
    assert float(found[0][1].abs().max()) > 1.0


def test_one_wide_node_does_not_blow_up_the_tables() -> None:
    wide = np.stack([np.zeros(1000, dtype=int), np.arange(1000)], 1)
    narrow = np.stack([np.arange(1, 1001), np.zeros(1000, dtype=int)], 1)
    model = build_model(Catalog.from_codes(np.concatenate([wide, narrow])), TINY, 0)
    size = sum(table.numel() for name, table in model.named_buffers() if "rotary" not in name)
    assert size < 11 * 2000  # a table of all nodes' children, padded to the widest, has a million


def test_weights_depend_on_the_seed_alone() -> None:
    catalog = tiny_catalog()
    torch.manual_seed(5)
    first, state = build_model(catalog, TINY, 3), torch.random.get_rng_state()
    torch.rand(7)
    same, other = build_model(catalog, TINY, 3), build_model(catalog, TINY, 4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.lm.lm_head.weight, other.lm.lm_head.weight)
    torch.manual_seed(5)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("field", "value"), [("hidden", 18), ("heads", 0), ("layers", 0), ("dropout", 1.0), ("attention_dropout", -0.1)]
)
def test_bad_sizes_are_refused(field: str, value: float) -> None:
    with pytest.raises(TrainError, match=rf"ModelConfig\.{field}: {value} must"):
        ModelConfig(**{"heads": 4, field: value})


def test_histories_of_the_helper_have_all_lengths() -> None:
    assert sorted((histories(tiny_catalog(), 6) >= 0).sum(1)) == [0, 1, 2, 3, 4, 5]


def test_importing_the_package_is_light() -> None:
    code = "import sys, recast_train; sys.exit(bool({'torch', 'transformers', 'polars'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
