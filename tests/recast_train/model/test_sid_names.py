"""SID tokens of any numbers: a checkpoint's own, sorted as text, with gaps, 1-based or interleaved, against a plain forward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sid_world import enumerated, histories, tiny_catalog
from text_world import PROMPT, WORDS, text_checkpoint, text_lm, text_tokenizer

from recast_sim.catalog import Catalog
from recast_train.model import CHAT, ModelConfig, SidModel, TrainError, build_model
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.model.sid_names import BEGIN, END, sid_token
from recast_train.model.text_vocabulary import text_vocabulary
from recast_train.rollout import sample_rollouts
from recast_train.supervised.window_loss import window_loss

FIRST = 3 + len(WORDS)
CODES = np.random.default_rng(0).integers((3, 90, 5), (9, 120, 16), (20, 3))  # 1-based and more: no level has a code 0
CATALOG = Catalog.from_codes(CODES)
USED = [(level, int(code)) for level in range(3) for code in np.unique(CODES[:, level])]


def names(order: str, prefix: str = "") -> tuple[str, ...]:
    """Tokens of the codes that occur, in the order in which a checkpoint may have added them."""
    found = [sid_token(level, code, prefix) for level, code in USED]
    if order == "by number":
        return tuple(found)
    if order == "as text":
        return tuple(sorted(found))
    if order == "with others":
        return tuple(sorted([*found, *(sid_token(0, code, prefix) for code in range(200, 230)), "<think>"]))
    shuffled = np.random.default_rng(1).permutation(found)  # interleaved: no level in a row
    return tuple(map(str, shuffled))


def trained_model(folder: Path, order: str, prefix: str = "") -> SidModel:
    around = (BEGIN, END) if prefix else ()
    checkpoint = text_checkpoint(folder, names=(*names(order, prefix), *around), tied=False)
    return build_model(CATALOG, ModelConfig(checkpoint=checkpoint, vocabulary="text", prompt=PROMPT, dropout=0.0), 0)


@pytest.mark.parametrize("prefix", ["", "s_"])
@pytest.mark.parametrize("order", ["by number", "as text", "with others", "interleaved"])
def test_tokens_are_found_by_name(order: str, prefix: str) -> None:
    tokenizer = text_tokenizer(names=(*names(order, prefix), *((BEGIN, END) if prefix else ())))
    before, vocabulary = len(tokenizer), text_vocabulary(CATALOG, tokenizer, PROMPT)
    assert len(tokenizer) == before
    assert vocabulary.added == 0
    for item, tokens in enumerate(vocabulary.sid_tokens_IL.tolist()):
        expected = [sid_token(level, code, prefix) for level, code in enumerate(CODES[item].tolist())]
        assert tokenizer.convert_ids_to_tokens(tokens) == expected
    assert bool(vocabulary.begin) == bool(vocabulary.end) == bool(prefix)
    asked = vocabulary.encode(histories(CATALOG, 4))
    for row, tokens, real in zip(histories(CATALOG, 4), asked.tokens_PT, asked.real_PT, strict=True):
        around = (BEGIN, END) if prefix else ("", "")
        items = (tokenizer.convert_ids_to_tokens(vocabulary.sid_tokens_IL[item].tolist()) for item in row if item >= 0)
        sids = "".join(around[0] + "".join(item) + around[1] for item in items)
        whole = f"user : {PROMPT.replace('{history}', sids)} assistant : say , {around[0]}"
        assert tokens[real].tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("prefix", ["", "s_"])
@pytest.mark.parametrize("order", ["as text", "with others", "interleaved"])
def test_every_pass_is_that_of_a_plain_forward(tmp_path: Path, order: str, prefix: str) -> None:
    model = trained_model(tmp_path, order, prefix)
    prompts = model.vocabulary.encode(histories(CATALOG, 3, window=3))
    exact_PYL = enumerated(model, prompts)
    rollouts = sample_rollouts(model, prompts, 6, torch.Generator().manual_seed(0))
    drawn = np.take_along_axis(exact_PYL, rollouts.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(rollouts.logprobs_PGL.numpy(), drawn, atol=1e-4)
    with torch.no_grad():
        packed = packed_logprobs(model, prompts, torch.arange(3).repeat_interleave(6), rollouts.leaf_PG.flatten())
    assert np.allclose(packed.numpy(), drawn.reshape(18, 3), atol=1e-4)
    assert np.ptp(exact_PYL[..., 0]) > 0.1


def test_numbers_of_tokens_change_no_loss_and_no_gradient(tmp_path: Path) -> None:
    """The same weights under two numberings: equal losses, and gradients that are equal row by row."""
    plain, mixed = trained_model(tmp_path / "a", "by number"), trained_model(tmp_path / "b", "interleaved")
    pairs = list(zip(plain.vocabulary.sid_tokens_IL.ravel(), mixed.vocabulary.sid_tokens_IL.ravel(), strict=True))
    ours, theirs = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    mixed.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for weight, of in ((m, p) for m, p in zip(tables(mixed), tables(plain), strict=True)):
            weight[theirs] = of[ours]
    windows = np.array([[3, 7, 1], [5, 2, -1], [4, -1, -1]])
    losses = [window_loss(model, CATALOG, windows) for model in (plain, mixed)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for weight, of in zip(tables(mixed), tables(plain), strict=True):
        assert torch.allclose(weight.grad[theirs], of.grad[ours], atol=1e-6)
        assert float(of.grad[ours].abs().max()) > 1e-3
        assert torch.allclose(weight.grad.abs().sum(), of.grad.abs().sum(), rtol=1e-5)


def tables(model: SidModel) -> list[torch.Tensor]:
    return [model.lm.get_input_embeddings().weight, model.lm.get_output_embeddings().weight]


def test_a_token_that_an_item_needs_is_named() -> None:
    every = names("as text")
    for lost in (every[0], every[7], every[-1]):
        tokenizer = text_tokenizer(names=tuple(name for name in every if name != lost))
        with pytest.raises(TrainError, match=rf"ModelConfig\.tokenizer: .*has no token {lost}, which an item needs \(1 such\)"):
            text_vocabulary(CATALOG, tokenizer, PROMPT)


def test_a_level_that_is_not_there_is_added_and_counted() -> None:
    tokenizer = text_tokenizer(names=tuple(name for name in names("as text") if not name.startswith("<c_")))
    vocabulary = text_vocabulary(CATALOG, tokenizer, PROMPT)
    assert vocabulary.added == CATALOG.sizes[2]
    assert tokenizer.convert_ids_to_tokens(int(vocabulary.sid_tokens_IL[0, 2])) == sid_token(2, int(CODES[0, 2]), "")
    none = text_vocabulary(CATALOG, text_tokenizer(), PROMPT)
    assert none.added == 2 + sum(CATALOG.sizes)


def test_tokens_without_rows_in_the_checkpoint_are_named(tmp_path: Path) -> None:
    folder = text_checkpoint(tmp_path, names=names("as text"))
    text_lm("qwen3", FIRST + 4).save_pretrained(folder)
    with pytest.raises(TrainError, match=rf"has {FIRST + 4} rows, and none for the tokenizer's token"):
        build_model(CATALOG, ModelConfig(checkpoint=folder, vocabulary="text", prompt=PROMPT), 0)


def test_one_level_is_enough() -> None:
    catalog = Catalog.from_codes(np.array([[4], [104], [7]]))
    tokenizer = text_tokenizer(names=("<a_104>", "<a_4>", "<a_7>"))
    vocabulary = text_vocabulary(catalog, tokenizer, PROMPT)
    assert vocabulary.sid_tokens_IL.ravel().tolist() == [FIRST + 1, FIRST, FIRST + 2]


def test_chats_end_where_an_sid_begins() -> None:
    chat = np.empty(1, dtype=object)
    chat[0] = [{"role": "user", "content": "the items please"}]
    for prefix, end in (("", []), ("s_", [BEGIN])):
        around = (BEGIN, END) if prefix else ()
        tokenizer = text_tokenizer(names=(*names("as text", prefix), *around))
        asked = text_vocabulary(CATALOG, tokenizer, CHAT).encode(np.full((1, 1), -1), chat_P=chat)
        words = tokenizer.convert_ids_to_tokens(asked.tokens_PT[0].tolist())
        assert words == ["user", ":", "the", "items", "please", "assistant", ":", "say", ",", *end]


def test_tokens_of_both_kinds_in_the_catalogs_own_codes() -> None:
    """A tokenizer that has all tokens of one kind, and some of the other, is of the first."""
    catalog = tiny_catalog()
    some = tuple(sid_token(0, code) for code in range(2))
    every = tuple(sid_token(level, code, "") for level in range(3) for code in range(catalog.sizes[level]))
    vocabulary = text_vocabulary(catalog, text_tokenizer(names=(*some, *every)), PROMPT)
    assert vocabulary.added == 0
    assert vocabulary.begin == ()
