import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from recast_sim.configio import Common, ConfigError, Flag, Nested, OptionalFile, load_config, progress, run_command


@dataclass(frozen=True)
class Inner:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"Inner.rate: {self.rate} must be positive")


@dataclass(frozen=True)
class Outer:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    steps: int = 1
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Command(Common):
    """Do it."""

    file: OptionalFile = None
    config: Annotated[Outer, Nested] = field(default_factory=Outer, metadata={"type": Outer})
    loud: Flag = False


def call(arguments: list[str]) -> tuple[int, list[Command]]:
    seen: list[Command] = []
    return run_command("prog", "about", {"do": (Command, seen.append)}, (OSError,), arguments), seen


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_file_then_dataclass_then_options(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "steps = 5\n[inner]\nrate = 0.5\n")
    status, seen = call(["do", file, "--inner.rate", "0.7", "--seed", "3", "--loud"])
    assert status == 0
    assert seen[0].config == Outer(steps=5, inner=Inner(rate=0.7))
    assert (seen[0].seed, seen[0].loud, seen[0].json) == (3, True, False)
    assert call(["do", "--steps", "2"])[1][0].config == Outer(steps=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 5\n", "unknown key 'stepz'"),
        ("[inner]\nrat = 1\n", "unknown key 'inner.rat'"),
        ("steps = 'x'\n", "key 'steps'"),
        ("[inner]\nrate = -1.0\n", "Inner.rate: -1.0 must be positive"),
        ("steps =\n", "not TOML"),
    ],
)
def test_bad_files_are_one_line_with_the_key(tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(ConfigError, match=words):
        load_config(Outer, Path(file))
    assert call(["do", file])[0] == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert file in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dont"], "'dont' is unknown; choose from do"),
        (["do", "--nope", "1"], "--nope"),
        (["do", "--steps", "many"], "--steps"),
        (["do", "missing.toml"], "missing.toml: cannot be read"),
        (["do", "--inner.rate", "-2"], "Inner.rate: -2.0 must be positive"),
    ],
)
def test_bad_command_lines_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, seen = call(arguments)
    captured = capsys.readouterr()
    assert status == 2
    assert not seen
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_help_lists_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"])[0] == 0
    assert "do " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        call(["do", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--seed", "--out", "--json", "--inner.rate"))


def test_progress_shows_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        for done in range(1, 5):
            report("training", done, 10)
            time.sleep(0.05)
    shown = capsys.readouterr().err
    assert "4/10" in shown
    rate = re.search(r"([\d.]+)/s", shown)
    assert rate is not None
    assert 2 < float(rate[1]) < 25
    assert len(re.findall(r"\d:\d\d:\d\d", shown)) >= 2  # elapsed and left
