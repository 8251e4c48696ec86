"""Checkpoints that are refused, each with one clear line; and an SID model's own folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sid_world import TINY, histories, tiny_catalog, tiny_model
from text_world import PROMPT, text_checkpoint, text_lm, text_tokenizer

from recast_train.model import ModelConfig, TrainError, build_model, save_pretrained
from recast_train.model.shared_prompts import packed_logprobs

CATALOG = tiny_catalog()


def settings(folder: Path, **changes: Any) -> ModelConfig:
    return replace(ModelConfig(checkpoint=folder, vocabulary="text", prompt=PROMPT), **changes)


def refused(config: ModelConfig, message: str) -> None:
    with pytest.raises(TrainError, match=message) as caught:
        build_model(CATALOG, config, 0)
    assert "\n" not in str(caught.value)


def edited(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "tiny", "checkpoint": Path("x")}, "size: 'tiny' stands beside checkpoint x; give one of them"),
        ({"size": "tiny", "hidden": 64}, "hidden: 64 is set beside size 'tiny', which sets it; remove it"),
        ({"checkpoint": Path("x"), "layers": 2}, "layers: 2 is set beside checkpoint x"),
        ({"kv_heads": 3}, r"kv_heads: 3 must divide heads \(4\)"),
        ({"kv_heads": 0}, "kv_heads: 0 must be at least 1"),
        ({"vocabulary": "text"}, "tokenizer: None must be a local folder where vocabulary is 'text'"),
        ({"tokenizer": Path("x")}, "tokenizer: x needs vocabulary 'text'"),
        ({"checkpoint": Path("x"), "vocabulary": "text", "prompt": "next?"}, r"prompt: 'next\?' must hold {history} once"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=rf"ModelConfig\.{message}"):
        ModelConfig(**changes)


def test_folders_without_a_model(tmp_path: Path) -> None:
    text_tokenizer().save_pretrained(tmp_path)
    refused(settings(tmp_path / "none", tokenizer=tmp_path), r"none is no folder; give a local one")
    refused(settings(tmp_path), r"holds no config\.json")
    text_checkpoint(tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "lm" / "pytorch_model.bin")
    weights.unlink()
    refused(settings(tmp_path / "lm"), r"holds weights in pickle \(\.bin\), which can run code; convert them to safetensors")
    (tmp_path / "lm" / "pytorch_model.bin").unlink()
    refused(settings(tmp_path / "lm"), r"holds no \.safetensors")


def test_folders_without_a_tokenizer(tmp_path: Path) -> None:
    text_lm("qwen3", 30).save_pretrained(tmp_path)
    refused(settings(tmp_path), r"ModelConfig\.tokenizer: .* holds none of tokenizer\.json")
    (tmp_path / "tokenizer.json").write_text("{")
    refused(settings(tmp_path), r"ModelConfig\.tokenizer: .* does not load")


def test_damaged_weights(tmp_path: Path) -> None:
    text_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    save_file({name: tensor for name, tensor in whole.items() if "layers.1.mlp.up" not in name}, file, {"format": "pt"})
    refused(settings(tmp_path), r"lacks weights that its config asks for, \['model\.layers\.1\.mlp\.up_proj\.weight'\]")
    save_file({name: tensor[:3].contiguous() for name, tensor in whole.items()}, file, {"format": "pt"})
    refused(settings(tmp_path), r"ModelConfig\.checkpoint: .* (does not load|lacks weights)")
    file.write_bytes(b"not a file of tensors")
    refused(settings(tmp_path), r"ModelConfig\.checkpoint: .* does not load")


def test_architectures_that_recast_would_compute_wrongly(tmp_path: Path) -> None:
    text_checkpoint(tmp_path / "a")
    edited(tmp_path / "a", use_sliding_window=True, sliding_window=8, max_window_layers=1, layer_types=None)
    refused(settings(tmp_path / "a"), r"\(qwen3\) has layers without full attention")
    text_checkpoint(tmp_path / "b", kind="gpt2")
    refused(
        settings(tmp_path / "b"), r"\(gpt2\) has no attention_dropout to set to 0\.1; set ModelConfig\.attention_dropout to 0"
    )
    edited(tmp_path / "a", auto_map={"AutoConfig": "evil.Config"}, model_type="evil")
    refused(settings(tmp_path / "a"), r"ModelConfig\.checkpoint: .* does not load")


def test_logits_that_are_more_than_a_matrix(tmp_path: Path) -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    text_checkpoint(tmp_path)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": 40, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 1}
    GraniteForCausalLM(GraniteConfig(**shape, **tokens, logits_scaling=3.0)).save_pretrained(tmp_path)
    refused(settings(tmp_path), r"\(GraniteForCausalLM\) does not compute logits as output matrix times hidden state")


def test_a_pure_model_goes_through_its_folder(tmp_path: Path) -> None:
    model, asked = tiny_model(CATALOG), histories(CATALOG, 4)
    save_pretrained(model, tmp_path / "lm")
    config = ModelConfig(checkpoint=tmp_path / "lm")
    again = build_model(CATALOG, config, 5)
    leaves = torch.tensor([0, 5, 9, 14])
    with torch.no_grad():
        pair = [packed_logprobs(m, m.vocabulary.encode(asked), torch.arange(4), leaves) for m in (model, again)]
    assert torch.equal(*pair)
    other = tiny_catalog(20, (5, 4, 3))  # as many tokens
    with pytest.raises(
        TrainError, match=r"was trained on SIDs of sizes \[4, 3, 5\] \(14 tokens\), the catalog has \[5, 4, 3\]"
    ):
        build_model(other, config, 0)


def test_a_text_model_has_no_pure_vocabulary(tmp_path: Path) -> None:
    refused(
        ModelConfig(checkpoint=text_checkpoint(tmp_path)),
        r"was trained on SIDs of sizes None .* vocabulary 'text' for a text model",
    )


def test_gradient_checkpointing_of_the_ladder_is_of_the_layers() -> None:
    model = build_model(CATALOG, replace(TINY, gradient_checkpointing=True), 0)
    assert all(layer.gradient_checkpointing for layer in model.lm.model.layers)
