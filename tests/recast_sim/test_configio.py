import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from commands import Given
from pydantic import Field, PositiveInt

from recast_sim.commandline import Common, Flag, OptionalFile, PartOf, ProgressLines, progress, run_command
from recast_sim.configio import AtLeastOne, Checked, ConfigError, Share, load_config, override
from recast_sim.signal import SignalConfig


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
    widths: tuple[int, ...] = (1, 2)
    first_name: str | None = "x"
    sorted: bool = True
    count: PositiveInt | None = None
    points: tuple[dict[str, int], ...] = ()


@dataclass(frozen=True)
class Part:
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True)
class Command(Common):
    """Do it."""

    file: OptionalFile = None
    config: Outer
    loud: Flag = False


class WidthError(ValueError):
    pass


@dataclass(frozen=True)
class Strict(Checked, error=WidthError):
    width: PositiveInt = 1
    share: Share = 0.5
    kind: Literal["a", "b"] = "a"
    sizes: AtLeastOne[PositiveInt] = (1,)
    rate: float = 1.0
    count: Annotated[int, Field(multiple_of=4)] | None = None


@dataclass(frozen=True)
class StrictInside(Strict):
    inner: Strict = field(default_factory=Strict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width > self.inner.width:
            raise WidthError(f"StrictInside.width: {self.width} must be at most {self.inner.width} (inner.width)")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"width": 0}, "width: 0 must be at least 1"),
        ({"width": 1.5}, "width: 1.5 must be a whole number"),
        ({"width": "x"}, "width: 'x' must be a whole number"),
        ({"share": 1.0}, "share: 1.0 must be below 1"),
        ({"share": -0.5}, "share: -0.5 must be at least 0"),
        ({"kind": "c"}, "kind: 'c' must be one of 'a' or 'b'"),
        ({"sizes": ()}, "sizes: () must hold at least 1"),
        ({"sizes": (3, 0)}, "sizes.1: 0 must be at least 1"),
        ({"rate": float("inf")}, "rate: inf must be finite"),
        ({"count": 6}, "count: 6 must be a multiple of 4"),
    ],
)
def test_a_checked_config_names_class_field_value_and_fix(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    for cls in (Strict, StrictInside):
        with pytest.raises(WidthError, match=f"^{re.escape(f'{cls.__name__}.{said}')}$"):
            cls(**values)
    with pytest.raises(ConfigError, match=re.escape(f"Strict.{said}")):
        override(Strict(), values)
    assert Strict(**{name: getattr(Strict(), name) for name in values}) == Strict()


def test_a_checked_config_refuses_what_its_fields_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'inner.wide'"):
        load_config(StrictInside, Path(write(tmp_path / "a.toml", "[inner]\nwide = 1\n")))
    with pytest.raises(ConfigError, match=r"a.toml: StrictInside.width: 3 must be at most 2"):
        load_config(StrictInside, Path(write(tmp_path / "a.toml", "width = 3\n[inner]\nwidth = 2\n")))


@pytest.mark.parametrize(
    ("name", "value"), [("w_plus", "1.0"), ("w_plus", True), ("pass_k", "4"), ("pass_k", True), ("pass_k", 4.0)]
)
def test_numbers_of_the_signal_module_are_numbers_in_a_file_too(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^SignalConfig\.{name}: "):
        override(SignalConfig(), {name: value})
    assert override(SignalConfig(), {"w_plus": 2, "pass_k": 3}) == SignalConfig(w_plus=2.0, pass_k=3)


def call(arguments: list[str]) -> tuple[int, list[Command]]:
    seen: list[Command] = []
    return run_command("prog", "about", {"do": Given(Command, seen.append)}, arguments), seen


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


def test_a_file_counts_wherever_it_stands(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "steps = 5\n")
    for arguments in (["do", file, "--seed", "3"], ["do", "--seed", "3", file], ["do", "--loud", file, "--seed=3"]):
        status, (command,) = call(arguments)
        assert (status, command.config.steps, command.seed, command.file) == (0, 5, 3, Path(file))


def test_options_take_tuples_none_and_either_spelling(tmp_path: Path) -> None:
    others = ("--first_name", "None", "--no-sorted", "--count=2", "--out", str(tmp_path))
    status, (command,) = call(["do", "--widths", "3", "4", *others])
    assert status == 0
    assert command.config == Outer(widths=(3, 4), first_name=None, sorted=False, count=2)
    assert command.out == tmp_path
    assert call(["do", "--widths"])[1][0].config == Outer(widths=())


def test_a_part_of_a_file_is_read_from_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Piece(Common):
        """Do a part."""

        file: OptionalFile = None
        config: Annotated[Part, PartOf(Outer)]

    seen: list[Piece] = []
    file = write(tmp_path / "a.toml", "steps = 5\n[inner]\nrate = 0.5\n")
    assert run_command("prog", "about", {"do": Given(Piece, seen.append)}, ["do", file, "--inner.rate", "2"]) == 0
    assert seen[0].config == Part(Inner(2.0))
    assert run_command("prog", "about", {"do": Given(Piece, seen.append)}, ["do", file, "--steps", "2"]) == 2
    assert "--steps: unknown" in capsys.readouterr().err


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
        (["do", "--nope", "1"], "--nope: unknown; remove it or fix its name"),
        (["do", "--stepz", "1"], "--stepz: unknown; did you mean --steps?"),
        (["do", "--steps", "many"], "--steps: 'many' must be a whole number"),
        (["do", "--count", "0"], "--count: 0 must be at least 1"),
        (["do", "--steps"], "--steps: expected one argument"),
        (["do", "--widths", "1", "x"], "--widths: 'x' must be a whole number"),
        (["do", "missing.toml"], "missing.toml: cannot be read"),
        (["do", "--out", ""], "--out: '' names no file or folder; give a path"),
        (["do", ""], "PATH: '' names no file or folder; give a path"),
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


def test_progress_without_a_terminal_is_a_line_every_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = ProgressLines(lambda: now)
    for step in range(0, 101):
        now = 2.0 * step
        report("training", 300 + step, 400)  # resumed at 300
        report("other", step, 1_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 300 of 400"
    assert [line for line in lines if line.startswith("training")] == [
        "training: 300 of 400",
        *(f"training: {300 + step} of 400, 0.5/s, {timedelta(seconds=200 - 2 * step)} left" for step in range(15, 91, 15)),
        "training: 400 of 400, 0.5/s",
    ]
    assert len([line for line in lines if line.startswith("other")]) == 7


def test_progress_shows_a_rate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    with progress() as report:
        for done in range(1, 5):
            report("training", done, 10)
            time.sleep(0.05)
    shown = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "4/10" in shown
    rate = re.search(r"([\d.]+)/s", shown)
    assert rate is not None
    assert 2 < float(rate[1]) < 25
    assert len(re.findall(r"\d:\d\d:\d\d", shown)) >= 2  # elapsed and left
