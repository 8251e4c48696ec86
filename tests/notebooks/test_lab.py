"""What the notebooks share: commands give tables and figures or say why not, outputs are small."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from notebooks import lab
from recast_train.data import load_source

PRINTED = """
                 (a) two rows

| constructor |  learnable |
|-------------|------------|
| grpo        |     15.0 % |
A note, ||E||^2 in it,
   on two lines.
run: /somewhere/else
figure: /somewhere/else/figure.png
seconds: 3.2
"""


def test_printed_tables_become_markdown_that_a_second_run_repeats() -> None:
    assert lab.as_markdown(PRINTED).split("\n\n") == [
        "(a) two rows",
        "| constructor | learnable |\n|-------------|------------|\n| grpo | 15.0 % |",
        "A note, ||E||^2 in it,  \non two lines.",
    ]


def test_a_table_of_rows() -> None:
    shown = lab.table([{"name": "grpo", "cosine": 0.99812, "rows": 32}, {"name": "sft", "cosine": -2.0, "rows": 1}])
    assert shown._repr_markdown_().splitlines() == [
        "| name | cosine | rows |",
        "| --- | --- | --- |",
        "| grpo | 0.998 | 32 |",
        "| sft | -2 | 1 |",
    ]


def test_a_figure_becomes_a_small_picture_and_is_closed() -> None:
    figure, axis = plt.subplots(figsize=(30, 4))
    axis.plot([1, 2, 3])
    picture = Image.open(io.BytesIO(lab.show(figure)._repr_png_()))
    assert (picture.width, picture.mode) == (1100, "P")
    assert not plt.fignum_exists(figure.number)


@pytest.mark.slow
def test_a_command_runs_and_shows_its_tables_and_its_figure() -> None:
    world = "--environment.items 30 --environment.sizes 4 4 4 --environment.train-prompts 64 --environment.heldout-prompts 32"
    finished = lab.run(f"recast-sim gradients --no-calibrate --constructors grpo sft --group-sizes 4 --prompts 64 {world}")
    assert finished.result["prompts"] == 64
    assert Path(lab.SCRATCH.name) in finished.folder.parents
    assert "| exact gradient |" in finished.tables()._repr_markdown_()
    assert Image.open(io.BytesIO(finished.figure()._repr_png_())).width == 1100


@pytest.mark.parametrize(
    ("line", "words"),
    [("recast-sim train nowhere.toml", "nowhere.toml: cannot be read"), ("rm -r x", "rm: not a command of this project")],
)
def test_a_command_that_fails_says_why(line: str, words: str) -> None:
    with pytest.raises(lab.CommandError, match=words):
        lab.run(line)


def test_without_the_real_data_a_made_up_log_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECAST_CACHE", str(tmp_path))
    stand_in = lab.data_at_hand()
    assert stand_in.format == "atomic"
    assert len(load_source(stand_in).test) > 100
    monkeypatch.setattr(lab, "cached_ml100k", lambda: tmp_path)
    assert lab.data_at_hand().format == "ml-100k"


def test_what_a_command_prints_and_says_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").write_text("step,prompt_id,reward\n1,a,0\n1,a,1\n")
    assert "| 1     |" not in (text := lab.printed(f"recast-report audit {tmp_path / 'dump.csv'}")._repr_markdown_())
    assert "learnable groups (a hit and a miss) | 100.00 % | 1 |" in text
    with pytest.raises(lab.CommandError, match=r"missing\.csv"):
        lab.printed(f"recast-report audit {tmp_path / 'missing.csv'}")
