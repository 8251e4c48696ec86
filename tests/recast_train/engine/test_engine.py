"""Two gloo processes against one: losses, parameters, checkpoints, errors that stop all ranks. Two launches in all."""

import time
from pathlib import Path
from typing import Any

import engine_world as world
import pytest
import torch
from sid_world import tiny_catalog, tiny_model, tiny_prompts
from torch import Tensor
from updating import update

from recast_sim.runs import RunError
from recast_sim.runs.model_state import load_state, read_tensors, save_state
from recast_sim.signal import ObjectiveConfig
from recast_train.engine import Engine, EngineConfig, State, chosen_device, device_words, split_plan
from recast_train.model import TrainError
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.rl.update import Passes

STRATEGIES = ("ddp", "fsdp2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[str, Any]:
    """Whole runs of one process; "single-CONSTRUCTOR-half" is there for two processes to go on from."""
    found: dict[str, Any] = {}
    with Engine(EngineConfig()) as engine:
        for constructor in ("grpo", "recast"):
            training = world.Training(engine, constructor).run(1, world.STEPS // 2)
            training.save(folder / f"single-{constructor}-half").run(world.STEPS // 2 + 1, world.STEPS)
            found[constructor] = training.save(folder / f"single-{constructor}").log
    return found


@pytest.fixture(scope="module")
def two(folder: Path, one: dict[str, Any]) -> list[dict[str, Any]]:
    code, printed, found = world.launch(folder, "all")
    assert code == 0, printed
    return found


def close(found: list[dict[str, float]], expected: list[dict[str, float]], names: tuple[str, ...] = ()) -> None:
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        for name in names or ("loss", "norm", "kl", "clip_share"):
            assert row[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), name


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    assert len(a) > 10
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("constructor", ["grpo", "recast"])
def test_two_processes_equal_one(
    strategy: str, constructor: str, folder: Path, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    for rank, found in enumerate(two):
        assert (found[strategy]["rank"], found[strategy]["world"]) == (rank, 2)
        close(found[strategy][constructor], one[constructor])
    model, optimiser, _ = read_tensors(folder / f"{strategy}-{constructor}")
    expected, moments, _ = read_tensors(folder / f"single-{constructor}")
    same_tensors(model, expected)
    same_tensors(optimiser, moments)
    start = tiny_model(tiny_catalog(), scale=3.0).state_dict()
    assert max(float((model[name] - start[name]).abs().max()) for name in model) > 0.01


def test_ranks_emit_equally_many_rows_also_without_one_of_their_own(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for strategy in STRATEGIES:
        emitted = [[row["emitted"] for row in found[strategy]["recast"] if "emitted" in row] for found in two]
        assert emitted[0] == emitted[1]
        kept = [row["rows"] for row in one["recast"] if "rows" in row]
        assert [row["rows"] for row in two[0][strategy]["recast"] if "rows" in row] == kept
        assert emitted[0][1] == kept[1]  # step 2: the first rank has all rows, the second fillers alone


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_go_on_from_one(strategy: str, folder: Path, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    close(two[1][strategy]["resumed"], one["recast"][world.STEPS :])
    same_tensors(read_tensors(folder / f"{strategy}-resumed")[0], read_tensors(folder / "single-recast")[0])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_goes_on_from_two(strategy: str, folder: Path, one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    with Engine(EngineConfig()) as engine:
        training = world.Training(engine, "recast").load(folder / f"{strategy}-recast-half")
        close(training.run(world.STEPS // 2 + 1, world.STEPS).log, one["recast"][world.STEPS :])
    plain = tiny_model(tiny_catalog(), seed=3)
    load_state(folder / f"{strategy}-recast", plain)  # without the engine too
    same_tensors(dict(plain.state_dict()), read_tensors(folder / "single-recast")[0])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_states_are_put_back(strategy: str, folder: Path, two: list[dict[str, Any]]) -> None:
    fresh = two[0][strategy]["fresh"]
    assert read_tensors(folder / f"{strategy}-fresh")[1] == {}
    close(fresh[world.UPDATES :], fresh[: world.UPDATES])
    first, best = (read_tensors(folder / f"{strategy}-{name}") for name in ("first", "best"))
    same_tensors(best[0], first[0], tolerance=0.0)
    assert any(not torch.equal(slot, first[1][name]) for name, slot in best[1].items())  # it did move on in between


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_that_need_unequally_many_passes_do_equally_many(strategy: str, two: list[dict[str, Any]]) -> None:
    with Engine(EngineConfig()) as engine:
        expected = world.limited(engine, 0)["log"]
    found = [rank[strategy]["limited"] for rank in two]
    assert [rank["counted"] for rank in found] == [[True, True], [True, False]]
    for rank in found:
        close(rank["log"], expected, tuple(expected[0]))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_groups_of_thoughts_are_those_of_one_process(strategy: str, two: list[dict[str, Any]]) -> None:
    with Engine(EngineConfig()) as engine:
        expected = world.thinking(engine)
    assert expected["soft"]["rows"] > 0
    assert expected["hard"]["rows"] > 0
    for rank in two:
        found = rank[strategy]["thinking"]
        for kind in ("soft", "hard"):
            close([found[kind]], [expected[kind]], tuple(expected[kind]))
        assert found["greedy"] == expected["greedy"]
        assert found["logprob"] == pytest.approx(expected["logprob"], rel=1e-4)


def test_fsdp2_holds_half_a_model(two: list[dict[str, Any]]) -> None:
    whole = sum(weight.numel() for weight in tiny_model(tiny_catalog()).parameters())
    assert [found["ddp"]["elements"] for found in two] == [whole, whole]
    assert sum(found["fsdp2"]["elements"] for found in two) == whole


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_collectives_and_errors_on_all_ranks(strategy: str, two: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(found[strategy]["collectives"] for found in two):
        errors = found.pop("errors")
        assert found == {
            "gather": [[[0, 7], [1, 7]], [True, True, False, True], [[0.5], [1.5]]],
            "all_sum": [3.0, 0.5],
            "mean": [3.0, 0.75],
            "main": {"by": 0, "text": "ä"},
            "share": [2 * rank, 2 * rank + 2],
            "kept": True,
        }
        assert errors["uneven"] == "TrainError: prompts a step: 5 must be a multiple of the 2 processes"
        assert errors["full disk"] == ("TrainError: rank 0 stopped the run: " if rank else "") + "OSError: no space left"
        assert "norms differ over ranks" in errors["differing start"]
        assert errors["not finite"].endswith("lower learning_rate")
        assert "lm.lm_head.weight has shape None, the model (14, 16)" in errors["not fitting"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_half_precision_learns(strategy: str, two: list[dict[str, Any]]) -> None:
    with Engine(EngineConfig("ddp", "bf16")) as engine:
        alone = world.half_precision(engine)
    losses = two[0][strategy]["bf16"]
    assert two[1][strategy]["bf16"] == losses
    assert losses[-1] < 0.3 * losses[0]
    assert losses[0] == pytest.approx(alone[0], rel=0.02)


def test_a_rank_that_raises_stops_all(tmp_path: Path) -> None:
    started = time.perf_counter()
    code, printed, found = world.launch(tmp_path, "raises")
    assert code != 0
    assert found == [
        "rank 1 stopped the run: TrainError: loss: the second rank has had enough",
        "loss: the second rank has had enough",
    ], printed
    assert time.perf_counter() - started < 90  # gloo and torchrun themselves wait for half an hour


@pytest.mark.parametrize("strategy", ["single", *STRATEGIES])
def test_one_process_is_the_plain_update(strategy: Any) -> None:
    plan, leaf_PG = world.batch(1, "recast")
    twin, reference = (tiny_model(tiny_catalog(), seed, scale=3.0) for seed in (0, 1))
    prompts, leaf_N = tiny_prompts(tiny_catalog(), world.P, seed=1), leaf_PG.flatten()[plan.rows_N]
    optimiser = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    rows, passes = split_plan(plan, world.G, slice(0, world.P)), Passes(ObjectiveConfig(kl=0.1), max_norm=1.0)
    with Engine(EngineConfig(strategy)) as engine:
        expected = update(engine, twin, reference, prompts, rows, leaf_N, world.G, optimiser, passes)
        found = world.Training(engine, "recast").run(1, 1).log[0]
        assert engine.on_main(lambda: "main") == "main"
        assert engine.share(5) == slice(0, 5)
    assert [found["loss"], found["norm"]] == pytest.approx([expected["loss"], expected["gradient_norm"]], rel=1e-5)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tiny_catalog())
    optimiser = torch.optim.AdamW(model.parameters())
    model(packed_logprobs, tiny_prompts(tiny_catalog(), 1), torch.tensor([0]), torch.tensor([0])).sum().backward()
    optimiser.step()
    save_state(tmp_path, model, optimiser)  # counts the optimiser's parameters instead of naming them
    with Engine(EngineConfig()) as engine:
        own = engine.state(model, optimiser)
        with pytest.raises(RunError, match="optimiser state of 0 does not fit"):
            engine.load(State(*read_tensors(tmp_path)[:2]), model, optimiser)
        other = tiny_model(tiny_catalog(sizes=(5, 3, 5)))
        with pytest.raises(RunError, match=r"lm\.lm_head\.weight has shape \(14, 16\), the model \(15, 16\)"):
            engine.load(own, other)


@pytest.mark.parametrize(
    ("variables", "config", "message"),
    [
        ({"WORLD_SIZE": "2"}, EngineConfig(), "single is for one process and the launcher started 2; set it to 'ddp'"),
        ({"ACCELERATE_USE_FSDP": "true"}, EngineConfig("fsdp2"), "ACCELERATE_USE_FSDP: true .*launch without --use_fsdp"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, EngineConfig("ddp"), "fp16 differs from EngineConfig.precision 'fp32'"),
    ],
)
def test_a_launcher_that_asks_for_something_else(
    variables: dict[str, str], config: EngineConfig, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match=message):
        Engine(config)


@pytest.mark.parametrize(("field", "value"), [("strategy", "dp"), ("precision", "fp16")])
def test_config_errors(field: str, value: str) -> None:
    with pytest.raises(TrainError, match=rf"EngineConfig\.{field}: '{value}' must be one of"):
        EngineConfig(**{field: value})


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(TrainError, match="device: tpu must be 'auto', 'cpu' or 'cuda'"):
        Engine(EngineConfig(), "tpu")


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (8, "auto", "cuda"), (8, "cpu", "cpu"), (1, "cuda", "cuda")],
)
def test_auto_takes_the_gpu_that_is_there_and_says_so(
    there: int, asked: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert chosen_device(asked) == taken
    card = "cuda, NVIDIA H100" + (f", {there} on this machine" if there > 1 else "")
    assert device_words(asked) == (
        {"cpu": "cpu", "cuda": card}[taken] + ("; no GPU was found" if there == 0 and asked == "auto" else "")
    )


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match="device: cuda is not available here; use 'auto' or 'cpu'"):
        chosen_device("cuda")


def test_nothing_else_imports_the_engine_libraries() -> None:
    package = world.ROOT / "recast_train"
    using = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in ("import accelerate", "from accelerate", "torch.distributed"))
    }
    assert using == {"engine", "adapters"}  # TRL's trainer is accelerate's
