"""Configs from anywhere: refused in one line with exit 2 and no folder, or sane; a small one that is taken also runs."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import fuzzing
import pytest
from commands import Given
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.cli.budget import Budget, BudgetConfig
from recast_sim.cli.claims import Claims
from recast_sim.cli.gradients import Gradients
from recast_sim.cli.map import Map, MapConfig
from recast_sim.cli.train import RunConfig, Train, train_one
from recast_sim.commandline import run_command
from recast_sim.errors import RecastError
from recast_sim.experiments.map_cells import Axis
from recast_sim.training.training_config import TrainingConfig
from recast_sim.world.environment import EnvironmentConfig
from recast_sim.world.policy import PolicyConfig
from recast_train.cli.run import RunRecipe
from recast_train.cli.study import Study

TINY = RunConfig(
    EnvironmentConfig(items=12, sizes=(4, 4), dim=3, train_prompts=24, heldout_prompts=8, validation_prompts=8),
    PolicyConfig(width=4),
    0.5,
    TrainingConfig(group_size=4, prompts_per_step=4, steps=2, evaluate_every=1),
)
COMMANDS: dict[str, tuple[type, Any]] = {
    "train": (Train, TINY),
    "gradients": (Gradients, None),
    "budget": (Budget, BudgetConfig(points=({"label": "a", "training.group_size": 8},), control_rates=(0.1,))),
    "map": (Map, MapConfig(axes=(Axis("c", ({"convergence": 0.5},)),))),
    "claims": (Claims, None),
    "run": (RunRecipe, None),
    "study": (Study, None),
}
ONCE = {"methods", "learning_rates", "metrics", "constructors", "group_sizes", "control_rates", "passes", "pairs", "grids"}


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    fuzzing.tell_what_was_tried()


def base(name: str) -> dict[str, Any]:
    cls, config = COMMANDS[name]
    kind = cls.__dataclass_fields__["config"].type
    return _plain(asdict(kind() if config is None else config))


def _plain(value: Any) -> Any:
    """As a file holds it: no None, no empty lists, lists for tuples, text for paths."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if part is not None and part != ()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def check_sane(config: Any) -> None:
    """By other means than the product's: numbers are numbers of their default's kind, finite, of a size; names stand once."""
    for field in fields(config):
        value, default = getattr(config, field.name), getattr(type(config)(), field.name) if not _needs(config) else None
        if is_dataclass(value):
            check_sane(value)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert type(value) in (int, float), (field.name, value)
            assert abs(value) <= (2**62 if "seed" in field.name else 1e9), (field.name, value)
            assert isinstance(default, float) or isinstance(value, int), (field.name, value)
        if isinstance(default, bool):
            assert isinstance(value, bool), (field.name, value)
        if field.name in ONCE and isinstance(value, tuple):
            assert len(set(value)) == len(value), (field.name, value)
        if field.name == "regime":
            assert value == () or (len(value) == 3 and sum(value) < 1 + 1e-5), value
        if field.name in ("convergence", "weak", "strong"):
            assert 0 <= value <= 100, value


def _needs(config: Any) -> bool:
    return type(config).__name__ in ("Choice", "Axis")


def parsed(name: str, file: Path, *options: str) -> tuple[fuzzing.Done, Any]:
    """What a command makes of a file, without running it."""
    seen: list[Any] = []
    main: Callable[[], None] = lambda: exit_with(name, file, options, seen)  # noqa: E731
    done = fuzzing.called(main)
    return done, seen[0] if seen else None


def exit_with(name: str, file: Path, options: tuple[str, ...], seen: list[Any]) -> None:
    raise SystemExit(run_command("recast-x", "", {name: Given(COMMANDS[name][0], seen.append)}, [name, str(file), *options]))


def refused(done: fuzzing.Done) -> None:
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("recast-x: error: ")
    assert "Traceback" not in line
    assert not any(mark in line for mark in ("\x1b", "\u202e"))


OPTIONS = ((), ("--seed", "-1"), ("--seed", "nan"), ("--seed", "1" * 5000), ("--seed", "True"), ("--seed", "3"), ("--out", ""))


@fuzzing.tries(60)
@given(data=st.data())
def test_a_config_from_anywhere(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    work = tmp_path_factory.getbasetemp() / "fuzz-configs"
    work.mkdir(exist_ok=True)
    name, file = data.draw(st.sampled_from(sorted(COMMANDS))), work / "a.toml"
    file.write_text(fuzzing.toml(data.draw(fuzzing.mutated(base(name)))), encoding="utf-8", errors="surrogatepass")
    with fuzzing.time_limit():
        done, command = parsed(name, file, *data.draw(st.sampled_from(OPTIONS)))
    assert sorted(path.name for path in work.iterdir()) == ["a.toml"]
    fuzzing.TRIED[f"config, {name}: {'refused' if command is None else 'taken'}"] += 1
    if command is None:
        refused(done)
        return
    check_sane(command.config)
    assert 0 <= command.seed <= 2**62
    if name == "train" and small(command.config):
        runs(command, work)


def small(config: RunConfig) -> bool:
    world, training = config.environment, config.training
    prompts = world.train_prompts + world.heldout_prompts + world.validation_prompts + world.fresh_prompts
    cost = world.items * prompts * training.group_size * training.prompts_per_step * max(training.steps, training.passes * 10)
    return cost * max(world.dim, config.policy.width) * config.convergence < 1e8 and training.mini_batches < 10


def runs(command: Train, work: Path) -> None:
    """A taken config runs to its end, or says in one line why not."""
    out = work / "run"
    try:
        with fuzzing.time_limit(), fuzzing.silence():
            train_one(replace(command, out=out, json=True))
    except (RecastError, OSError):
        fuzzing.TRIED["config, train: run, refused late"] += 1
    else:
        fuzzing.TRIED["config, train: run, a figure"] += 1
        assert (out / "steps.parquet").exists()
    assert not list(work.rglob(".*.tmp"))
    fuzzing.shutil.rmtree(out, ignore_errors=True)


BYTES = (
    b"\xff\xfe",
    b"a = " + b"[" * 3000,
    b"steps = " + b"9" * 5000,
    b"\x00",
    b"[a]\n[a]\n",
    b"a = 1979-05-27",
    b"=",
    b"a" * (2 << 20),
)


@pytest.mark.parametrize("content", BYTES, ids=range(len(BYTES)))
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    refused(parsed("train", file)[0])
    assert list(tmp_path.iterdir()) == [file]
