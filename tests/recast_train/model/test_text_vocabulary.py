"""Text vocabularies and checkpoints: prompts as the tokenizer writes them, and every pass against a plain forward."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sid_world import dense_logprobs, enumerated, histories, tiny_catalog
from text_world import PROMPT, WORDS, text_checkpoint, text_tokenizer

from recast_sim.catalog import Catalog
from recast_sim.runs.model_state import load_state, save_state
from recast_train.model import ModelConfig, SidModel, TrainError, build_model, save_pretrained, sid_vocabulary
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.model.sid_names import BEGIN, END, sid_token
from recast_train.model.text_vocabulary import text_vocabulary
from recast_train.rollout import sample_rollouts
from recast_train.supervised.window_loss import window_loss

KINDS = ("qwen3", "llama", "gpt2")
FIRST = 3 + len(WORDS)  # of the tokens that are added


def text_config(folder: Path) -> ModelConfig:
    return ModelConfig(checkpoint=folder, vocabulary="text", prompt=PROMPT, dropout=0.0, attention_dropout=0.0)


def text_model(folder: Path, catalog: Catalog, kind: str = "qwen3", seed: int = 0, **settings: object) -> SidModel:
    checkpoint = folder if (folder / "config.json").exists() else text_checkpoint(folder, kind)
    return build_model(catalog, replace(text_config(checkpoint), **settings), seed)


def apart(model: SidModel) -> SidModel:
    """The tokens of the SIDs far from each other, so that its softmaxes are far from uniform."""
    with torch.no_grad():
        model.lm.get_input_embeddings().weight[FIRST:].normal_(generator=torch.Generator().manual_seed(0))
    return model


def written(catalog: Catalog, row: np.ndarray) -> str:
    """SIDs of a history as text."""
    sids = ([sid_token(level, code) for level, code in enumerate(catalog.codes_IL[item])] for item in row if item >= 0)
    return "".join(BEGIN + "".join(sid) + END for sid in sids)


def codes(level: int, count: int, start: int = 0) -> tuple[str, ...]:
    return tuple(sid_token(level, code) for code in range(start, count))


def minionerec(level: int, count: int, start: int = 0) -> tuple[str, ...]:
    """Names of MiniOneRec's tokens, sorted as text, as its checkpoints have them."""
    return tuple(sorted(sid_token(level, code, "") for code in range(start, count)))


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_are_those_of_the_tokenizer(chat: bool) -> None:
    catalog, tokenizer = tiny_catalog(), text_tokenizer(chat)
    vocabulary, asked = text_vocabulary(catalog, tokenizer, PROMPT), histories(tiny_catalog(), 5)
    found = vocabulary.encode(asked)
    for row, tokens, real in zip(asked, found.tokens_PT, found.real_PT, strict=True):
        text = PROMPT.replace("{history}", written(catalog, row))
        whole = f"user : {text} assistant : say , {BEGIN}" if chat else text + BEGIN
        assert tokens[real].tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert not real[: int((~real).sum())].any()
    assert tokenizer.convert_ids_to_tokens(int(vocabulary.level_tokens[2][0])) == "<s_c_0>"
    assert tokenizer.decode([vocabulary.level_tokens[1][2]]) == "<s_b_2>"


def test_a_known_vocabulary_is_used_as_it_is() -> None:
    catalog = tiny_catalog()
    names = (*codes(1, 9), BEGIN, *codes(0, 4), END)
    vocabulary = text_vocabulary(catalog, text_tokenizer(names=names), PROMPT)
    assert [int(tokens[0]) for tokens in vocabulary.level_tokens] == [FIRST + 10, FIRST, FIRST + 15]  # level c is added
    assert (vocabulary.begin, vocabulary.end) == ((FIRST + 9,), (FIRST + 14,))
    assert vocabulary.size == FIRST + 20


def test_a_closing_token_of_the_tokenizer_is_cut_off() -> None:
    from tokenizers.processors import TemplateProcessing

    catalog, tokenizer = tiny_catalog(), text_tokenizer(chat=False)
    special = [("<unk>", 0), ("<eos>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<unk> $A <eos>", special_tokens=special)
    vocabulary = text_vocabulary(catalog, tokenizer, PROMPT)
    assert vocabulary.prefix[0] == 0
    assert vocabulary.suffix[-1:] == vocabulary.begin


def test_a_thought_stands_before_the_sid() -> None:
    catalog, tokenizer, asked = tiny_catalog(), text_tokenizer(names=("</think>",)), histories(tiny_catalog(), 2)
    vocabulary = text_vocabulary(catalog, tokenizer, PROMPT)
    found = vocabulary.encode(asked, thought=True)
    whole = f"user : {PROMPT.replace('{history}', written(catalog, asked[0]))} assistant :"
    assert found.tokens_PT[0].tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert vocabulary.thought_end == FIRST
    for plain in (text_vocabulary(catalog, text_tokenizer(), PROMPT), sid_vocabulary(catalog)):
        with pytest.raises(TrainError, match=r"thought: this vocabulary has none; it needs a tokenizer"):
            plain.encode(asked, thought=True)


@pytest.mark.parametrize(
    ("names", "prompt", "message"),
    [
        (
            codes(0, 3),
            PROMPT,
            r"has no token <s_a_3>, which an item needs \(1 such\); give the semantic IDs that it was trained",
        ),
        ((*codes(0, 4), *codes(1, 2)), PROMPT, r"has no token <s_b_2>"),
        (codes(0, 5, 1), PROMPT, r"has no token <s_a_0>"),
        (minionerec(0, 4, 1), PROMPT, r"has no token <a_0>"),
        ((*codes(0, 4), *minionerec(0, 4)), PROMPT, r"has tokens like <s_a_0> and <a_0>; keep those of one kind"),
    ],
)
def test_bad_tokens_are_named(names: tuple[str, ...], prompt: str, message: str) -> None:
    with pytest.raises(TrainError, match=r"ModelConfig\.tokenizer.*" + message):
        text_vocabulary(tiny_catalog(), text_tokenizer(names=names), prompt)


def test_a_template_that_loses_the_history_is_named() -> None:
    tokenizer = text_tokenizer()
    tokenizer.chat_template = "user :"
    with pytest.raises(TrainError, match=r"ModelConfig\.prompt: 0 histories survive the chat template"):
        text_vocabulary(tiny_catalog(), tokenizer, PROMPT)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pass_is_that_of_a_plain_forward(tmp_path: Path, kind: str, attention: str) -> None:
    catalog = tiny_catalog()
    model = apart(text_model(tmp_path, catalog, kind, attention=attention))
    prompts = model.vocabulary.encode(histories(catalog, 3, window=3))
    exact_PYL = enumerated(model, prompts)
    rollouts = sample_rollouts(model, prompts, 6, torch.Generator().manual_seed(0))
    drawn = np.take_along_axis(exact_PYL, rollouts.leaf_PG.numpy()[..., None], 1)
    assert np.allclose(rollouts.logprobs_PGL.numpy(), drawn, atol=1e-4)
    rows = torch.arange(3).repeat_interleave(6)
    with torch.no_grad():
        packed = packed_logprobs(model, prompts, rows, rollouts.leaf_PG.flatten())
    assert np.allclose(packed.numpy(), drawn.reshape(18, 3), atol=1e-4)
    assert np.ptp(exact_PYL[..., 0]) > 0.1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_windows_score_each_item_where_it_stands(tmp_path: Path, attention: str) -> None:
    catalog = tiny_catalog()
    model, nll = apart(text_model(tmp_path, catalog, "llama", attention=attention)), []
    windows = np.array([[3, 7, 1], [5, 2, -1], [4, -1, -1]])
    for row in windows:
        items = row[row >= 0]
        prompt = model.vocabulary.encode(items[None, :-1]).tokens_PT[0]
        starts = [int(at) + 1 for at in torch.nonzero(prompt == model.vocabulary.begin[0])]
        assert len(starts) == len(items)
        for start, item in zip(starts, items, strict=True):
            nll.append(-dense_logprobs(model, prompt[:start])[catalog.leaf_of_item_I[item]].sum())
    with torch.no_grad():
        assert float(window_loss(model, catalog, windows)) == pytest.approx(np.mean(nll), rel=1e-4)


@pytest.mark.parametrize(("tied", "padding"), [(True, 0), (False, 0), (True, 4), (False, 99)])
def test_new_rows_start_near_the_mean_of_the_old_ones(tmp_path: Path, tied: bool, padding: int) -> None:
    catalog, folder = tiny_catalog(), text_checkpoint(tmp_path, tied=tied, padding=padding)
    old = build_model(catalog, text_config(folder), 0)
    same, other = build_model(catalog, text_config(folder), 0), build_model(catalog, text_config(folder), 1)
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    size = old.vocabulary.size
    assert len(old.lm.get_input_embeddings().weight) == max(size, FIRST + padding)
    for table in ("get_input_embeddings", "get_output_embeddings"):
        was, now, again, else_ = (getattr(lm, table)().weight.detach() for lm in (before, old.lm, same.lm, other.lm))
        assert torch.equal(now[:FIRST], was[:FIRST])
        assert torch.equal(now, again)
        assert not torch.equal(now, else_)
        new = (now[FIRST:size] - was[:FIRST].mean(0)) / was[:FIRST].std(0)
        assert 0.05 < float(new.std()) < 0.15
        assert float(new.abs().max()) < 0.6
        assert len(now[FIRST:size].unique(dim=0)) == size - FIRST
    assert (old.lm.get_input_embeddings().weight is old.lm.get_output_embeddings().weight) == tied


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_weight_is_saved_once_and_stays_tied(tmp_path: Path, kind: str) -> None:
    catalog = tiny_catalog()
    model, other = (text_model(tmp_path / "lm", catalog, kind, seed) for seed in (0, 1))
    kept = copy.deepcopy(model)
    (tmp_path / "state").mkdir()
    save_state(tmp_path / "state", model)
    load_state(tmp_path / "state", other)
    for one in (other, kept):
        assert "lm.lm_head.weight" not in one.state_dict()
        assert one.lm.get_input_embeddings().weight is one.lm.get_output_embeddings().weight
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), model.parameters(), strict=True))
    with torch.no_grad():
        kept.lm.get_input_embeddings().weight.zero_()
    assert float(model.lm.get_input_embeddings().weight.abs().sum().detach()) > 0
    embedding = next(name for name in model.state_dict() if "embed_tokens" in name or "wte" in name)
    broken = {name: tensor for name, tensor in model.state_dict().items() if name != embedding}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(broken)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_exported_folder_gives_the_same_probabilities(tmp_path: Path, precision: str) -> None:
    catalog = tiny_catalog()
    model = text_model(tmp_path / "lm", catalog, precision=precision)
    asked = histories(catalog, 4)
    save_pretrained(model, tmp_path / "out")
    again = text_model(tmp_path / "out", catalog, seed=9, precision=precision)
    assert (again.vocabulary.sid_tokens_IL == model.vocabulary.sid_tokens_IL).all()
    leaves = torch.tensor([0, 5, 9, 14])
    with torch.no_grad():
        pair = [packed_logprobs(m, m.vocabulary.encode(asked), torch.arange(4), leaves) for m in (model, again)]
    assert torch.equal(*pair)


def test_a_ladder_model_can_read_text(tmp_path: Path) -> None:
    catalog = tiny_catalog()
    text_tokenizer().save_pretrained(tmp_path)
    model = build_model(catalog, ModelConfig(size="tiny", vocabulary="text", tokenizer=tmp_path, prompt=PROMPT), 0)
    assert len(model.lm.get_input_embeddings().weight) == model.vocabulary.size == FIRST + 2 + 4 + 3 + 5
