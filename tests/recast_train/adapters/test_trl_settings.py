"""What the TRL adapter says where TRL differs from what it relies on, or settings do not go together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl
import trl_world as world

from recast_sim.signal import SignalConfig, SignalError
from recast_train.adapters.trl.contract import check_class, check_instance
from recast_train.model import TrainError

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore::FutureWarning")]  # transformers on its own options

G = world.G
VERSION = trl.__version__.replace(".", r"\.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trl")
    world.write_checkpoint(folder)
    return folder


def renamed_argument(self: Any, batch: Any) -> None: ...


def shorter_result(self: Any, prompts: Any) -> Any:
    prompt_ids = completion_ids = tool_mask = completions = logprobs = extra_fields = images = prompts
    return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images


def without_batch_size(self: Any, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: Any) -> None: ...


@pytest.mark.parametrize(
    ("method", "other", "says"),
    [
        ("_prepare_inputs", renamed_argument, r"_prepare_inputs takes \(batch\), expected \(generation_batch\)"),
        ("_generate", shorter_result, r"_generate returns \(.*images\), expected \(.*images, tool_images\)"),
        ("_get_per_token_logps_and_entropies", without_batch_size, "cannot be called as before: .*'batch_size'"),
    ],
)
def test_another_trl_fails_at_construction(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, other: Callable[..., Any], says: str
) -> None:
    monkeypatch.setattr(trl.GRPOTrainer, method, other)
    with pytest.raises(TrainError, match=rf"trl: version {VERSION}: .*{says}; install 1"):
        world.trainer(folder)


def test_a_lost_method_a_lost_attribute_and_an_old_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match="has no method _generate"):
        check_class(object)
    run = world.trainer(folder)
    del run._buffered_inputs
    with pytest.raises(TrainError, match="has no attribute _buffered_inputs"):
        check_instance(run)
    monkeypatch.setattr(trl, "__version__", "1.10.0")
    with pytest.raises(TrainError, match=r"version 1\.10\.0: is older than 1\.11"):
        check_class(trl.GRPOTrainer)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"constructor": "spo"}, "constructor: 'spo' needs baseline_P, which TRL has not"),
        ({"anchor": None}, "anchor: is missing, and recast injects anchors"),
        ({"structural": None}, "structural: is missing, and recast orders rollouts"),
        ({"signal_config": SignalConfig(normaliser="tokens")}, "normaliser: 'tokens' has no effect here"),
        ({"signal_config": SignalConfig(anchor_choice="random")}, "anchor_choice: 'random' has no effect here"),
        ({"loss_type": "other"}, "loss_type: 'other' must be one of"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation: 'normalize_then_sum' must be"),
        ({"constructor": "care", "script": None}, "constructor: 'care' needs the rollouts' log-probabilities"),
        ({"constructor": "nobody's"}, "is not registered"),
    ],
)
def test_settings_that_do_not_go_together(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises((TrainError, SignalError), match=says):
        world.trainer(folder, **options)


def test_a_group_must_stay_on_one_process(folder: Path) -> None:
    run = world.trainer(folder)
    run.args.per_device_train_batch_size = G // 2
    with pytest.raises(TrainError, match=r"per_device_train_batch_size \* steps_per_generation: 2 must be a multiple"):
        run.signal_settings.check(run)


def test_anchors_as_text(folder: Path) -> None:
    names = {"anchor": lambda example: " ".join(world.NAMES[token - world.FIRST] for token in example["anchor"])}
    found, expected = world.change(world.trainer(folder, **names)), world.change(world.trainer(folder))
    assert any(part.any() for part in expected.values())
    assert all((part == found[name]).all() for name, part in expected.items())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"anchor": lambda example: ""}, r"anchor: \[\] is empty; give None"),
        ({"anchor": "gold"}, "anchor: 'gold' is no column of the data set, which has prompt, targets, anchor"),
        ({"structural": lambda completions, examples: [0.0]}, "structural: 1 scores came back for 16 completions"),
        ({"constructor": "rank_reward"}, "logprob_PG: missing; rank_reward needs the rollouts' log-probabilities"),
    ],
)
def test_what_only_a_batch_shows(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises((TrainError, SignalError), match=says):
        world.trainer(folder, **options).train()
