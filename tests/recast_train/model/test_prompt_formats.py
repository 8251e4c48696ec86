"""Runs from end to end on data that comes as prompts: MiniOneRec's, and OpenOneRec's with thoughts and several targets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from data_files import CHATS, SIDS, chat, csv_text, index_text, sid, write_openonerec
from safetensors.numpy import load_file
from sid_world import tiny_catalog
from text_world import WORDS, text_checkpoint

from recast_sim.catalog import Catalog
from recast_sim.runs import read_run
from recast_train.data import DataConfig, load_source
from recast_train.evaluate import EvaluationConfig
from recast_train.model import ModelConfig, TrainError, build_model
from recast_train.pipeline import stages
from recast_train.pipeline.recipe import RealConfig
from recast_train.pipeline.whole_run import run_real
from recast_train.rl.rl_loop import RlConfig, train_prompts
from recast_train.rl.rollout_groups import TrainPrompts
from recast_train.rollout import RolloutConfig, ThoughtConfig, free_logprobs
from recast_train.supervised import SftConfig

ROWS = {"train": 40, "valid": 8, "test": 12}
STEPS, P, G = 3, 4, 6
SFT = SftConfig(steps=6, batch=8, window=4, warm_up=2, evaluate_every=3)
RL = RlConfig(group_size=G, prompts_per_step=P, steps=STEPS, evaluate_every=3, validation_prompts=8)
EVALUATION = EvaluationConfig(train_prompts=10, group_size=G, width=3)


def asked(split: str) -> list[tuple[list[str], list[str]]]:
    """Walks along the items, the next one or two as targets."""
    rng, items = np.random.default_rng(len(split)), list(SIDS)
    rows = []
    for row in range(ROWS[split]):
        start, length = rng.integers(8), rng.integers(1, 4)
        walk = [items[(start + step) % 8] for step in range(length + 2)]
        rows.append((walk[:length], walk[length : length + 1 + row % 2]))
    return rows


def minionerec(folder: Path) -> Path:
    folder.mkdir()
    (folder / "toys.index.json").write_text(index_text())
    for split in ROWS:
        rows = [
            {
                "user_id": f"u{row}",
                "history_item_title": repr([f"toy {item}" for item in history]),
                "item_title": f"toy {targets[0]}",
                "history_item_id": repr([int(item) for item in history]),
                "item_id": targets[0],
                "history_item_sid": repr([sid(item) for item in history]),
                "item_sid": sid(targets[0]),
            }
            for row, (history, targets) in enumerate(asked(split))
        ]
        (folder / f"{split}.csv").write_text(csv_text(rows))
    return folder


def openonerec(folder: Path) -> Path:
    folder.mkdir()
    for split in ROWS:
        pl.DataFrame({"messages": [json.dumps(chat(*row)) for row in asked(split)]}).write_parquet(folder / f"{split}.parquet")
    return folder


def text_model(folder: Path, **more: Any) -> ModelConfig:
    checkpoint = text_checkpoint(folder, padding=3, names=("</think>",))
    return ModelConfig(checkpoint=checkpoint, vocabulary="text", dropout=0.0, attention_dropout=0.0, **more)


def check(root: Path, results: dict[str, Any], methods: tuple[str, ...]) -> None:
    assert set(results["methods"]) == set(methods)
    for name in methods:
        found = results["methods"][name]
        run = read_run(root / "rl" / found["folder"])
        assert run.status == "complete"
        assert run.steps["step"].to_list() == list(range(1, STEPS + 1))
        assert run.steps["rollouts"][-1] == found["rollouts"] > 0
        assert 0 < found["pass_at_1_sampled"] <= 1
        assert 0 <= found["pass@10"] <= 1


def test_a_run_on_minionerec(tmp_path: Path) -> None:
    methods = ("add_gt", "rank_reward")
    model = ModelConfig(hidden=16, layers=1, heads=2, feed_forward=24)
    data = DataConfig("minionerec", minionerec(tmp_path / "data"), max_history=3)
    rl = replace(RL, rollout=RolloutConfig("beam"))
    config = RealConfig(data=data, model=model, sft=SFT, rl=rl, evaluation=EVALUATION, methods=methods)
    results = run_real(config, 0, tmp_path / "run", resume=False)
    check(tmp_path / "run", results, methods)
    assert results["sids"]["sizes"] == [3, 3, 2]
    groups = read_run(tmp_path / "run" / "rl" / "add_gt").groups
    assert groups["hits"].max() == 1  # a beam holds a target once, and there is one


@pytest.mark.parametrize("prompt", ["chat", "text"])
def test_a_run_on_openonerec_with_thoughts(prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on = []

    def spied(*arguments: Any) -> TrainPrompts:
        trained_on.append(train_prompts(*arguments))
        begin = arguments[2].begin[0]
        assert (trained_on[-1].tokens.tokens_PT[:, -1] != begin).all()  # a thought comes before it
        return trained_on[-1]

    monkeypatch.setattr(stages, "train_prompts", spied)
    methods = ("grpo", "recast anchor_choice=most_likely")
    rl = replace(RL, rollout=RolloutConfig("beam", thought=ThoughtConfig(4)))
    chat_prompt, sft = ({"prompt": "{chat}"}, replace(SFT, steps=0)) if prompt == "chat" else ({}, SFT)
    config = RealConfig(
        data=DataConfig("openonerec", openonerec(tmp_path / "data"), max_history=3),
        model=text_model(tmp_path / "lm", **chat_prompt),
        sft=sft,
        rl=rl,
        evaluation=EVALUATION,
        methods=methods,
    )
    results = run_real(config, 0, tmp_path / "run", resume=False)
    check(tmp_path / "run", results, methods)
    for row in results["methods"].values():
        assert read_run(tmp_path / "run" / "rl" / row["folder"]).groups["hits"].max() == 2  # two targets in one beam
    assert [found.target_leaf_NT.shape for found in trained_on] == [(ROWS["train"], 2)] * 2
    assert results["sft"]["steps"] == sft.steps
    assert results["sft"]["validation_nll"] > 0
    start = load_file(tmp_path / "run" / "sft" / "model" / "model.safetensors")
    ended = load_file(tmp_path / "run" / "rl" / results["methods"]["grpo"]["folder"] / "model" / "model.safetensors")
    assert any((ended[name] != start[name]).any() for name in start)


def test_chats_are_what_the_template_says(tmp_path: Path) -> None:
    source = load_source(DataConfig("openonerec", write_openonerec(tmp_path / "data")))
    assert source.sids is not None
    config = text_model(tmp_path / "lm", prompt="{chat}")
    model = build_model(Catalog.from_codes(source.sids.codes_IL, source.sids.sizes), config, 0)
    vocabulary, asked_for = model.vocabulary, source.train
    tokenizer = vocabulary.tokenizer
    for thought in (False, True):
        found = vocabulary.encode(asked_for.history_NH, thought, asked_for.chat_N)
        for row, (history, targets) in enumerate(CHATS["train"]):
            system, user = chat(history, targets)[:2]
            text = f"system : {system['content']} user : {user['content']} assistant : "
            ids = tokenizer(text + ("" if thought else "say , <|sid_begin|>"))["input_ids"]
            assert found.tokens_PT[row][found.real_PT[row]].tolist() == ids
            assert found.real_PT[row].tolist() == sorted(found.real_PT[row].tolist())  # padding on the left
    assert len(set(found.length_P.tolist())) > 1
    with pytest.raises(TrainError, match=r"ModelConfig\.prompt: \{chat\} needs prompts with messages"):
        vocabulary.encode(asked_for.history_NH)


def test_chats_and_their_model_must_fit(tmp_path: Path) -> None:
    config = text_model(tmp_path / "lm", prompt="{chat}")
    data = DataConfig("openonerec", openonerec(tmp_path / "data"))
    with pytest.raises(TrainError, match=r"SftConfig\.steps: 6 must be 0 where ModelConfig\.prompt is \{chat\}"):
        run_real(RealConfig(data=data, model=config, sft=SFT), 0, tmp_path / "a", resume=False)
    plain = replace(config, checkpoint=text_checkpoint(tmp_path / "plain", chat=False))
    with pytest.raises(TrainError, match=r"ModelConfig\.tokenizer: .*plain has no chat template"):
        run_real(RealConfig(data=data, model=plain, sft=SFT), 0, tmp_path / "b", resume=False)
    with pytest.raises(TrainError, match=r"ModelConfig\.prompt: '\{chat\} please' must hold"):
        replace(config, prompt="{chat} please")


def test_a_thought_is_text_alone(tmp_path: Path) -> None:
    codes = tuple(f"<s_a_{code}>" for code in range(6))  # the catalog has four
    checkpoint = text_checkpoint(tmp_path, padding=3, names=("</think>", *codes, "<s_d_0>"))
    model = build_model(tiny_catalog(), ModelConfig(checkpoint=checkpoint, vocabulary="text"), 0)
    names = model.vocabulary.tokenizer.get_vocab()
    with torch.no_grad():
        found = free_logprobs(model, torch.randn(2, 16))
    assert found.shape[1] == model.vocabulary.size == len(names)  # new SID tokens take the rows that stood for no token
    model.lm.resize_token_embeddings(len(names) + 5, mean_resizing=False)
    with torch.no_grad():
        found = free_logprobs(model, torch.randn(2, 16))
    text = {"<unk>", "<pad>", "<eos>", "</think>", *WORDS}
    assert {name for name, token in names.items() if found[0, token] > -torch.inf} == text
    assert found.shape[1] == len(names) + 5
    assert (found[:, len(names) :] == -torch.inf).all()
    assert torch.allclose(found.exp().sum(1), torch.ones(2))
