"""What notebooks take from the package: commands give tables and figures or say why not, outputs are small."""

import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from recast_analysis import notebook

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
next: recast-sim plan /somewhere/else
"""


def test_printed_tables_become_markdown_that_a_second_run_repeats() -> None:
    assert notebook.as_markdown(PRINTED).split("\n\n") == [
        "(a) two rows",
        "| constructor | learnable |\n|-------------|------------|\n| grpo | 15.0 % |",
        "A note, ||E||^2 in it,  \non two lines.",
    ]


def test_a_table_of_rows() -> None:
    shown = notebook.table([{"name": "grpo", "cosine": 0.99812, "rows": 32}, {"name": "sft", "cosine": -2.0, "rows": 1}])
    assert shown._repr_markdown_().splitlines() == [
        "| name | cosine | rows |",
        "| --- | --- | --- |",
        "| grpo | 0.998 | 32 |",
        "| sft | -2 | 1 |",
    ]


def test_a_figure_becomes_a_small_picture_and_is_closed() -> None:
    figure, axis = plt.subplots(figsize=(30, 4))
    axis.plot([1, 2, 3])
    picture = Image.open(io.BytesIO(notebook.show(figure)._repr_png_()))
    assert (picture.width, picture.mode) == (1100, "P")
    assert not plt.fignum_exists(figure.number)


@pytest.mark.slow
def test_a_command_runs_and_shows_its_tables_and_its_figure() -> None:
    world = "--environment.items 30 --environment.sizes 4 4 4 --environment.train-prompts 64 --environment.heldout-prompts 32"
    finished = notebook.run(f"recast-sim gradients --no-calibrate --constructors grpo sft --group-sizes 4 --prompts 64 {world}")
    assert Path(notebook.SCRATCH.name) in finished.folder.parents
    tables = finished.tables()._repr_markdown_()
    assert "| exact gradient |" in tables
    assert "First 64 train prompts" in tables
    assert not re.search("^(run|figure|next): ", tables, re.MULTILINE)
    assert Image.open(io.BytesIO(finished.figure()._repr_png_())).width == 1100


@pytest.mark.parametrize(
    ("line", "words"),
    [("recast-sim train nowhere.toml", "nowhere.toml: cannot be read"), ("rm -r x", "rm: not a command of this project")],
)
def test_a_command_that_fails_says_why(line: str, words: str) -> None:
    with pytest.raises(notebook.CommandError, match=words):
        notebook.run(line)


def test_what_a_command_prints_and_says_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "dump.csv").write_text("step,prompt_id,reward\n1,a,0\n1,a,1\n")
    assert "| 1     |" not in (text := notebook.run(f"recast-report audit {tmp_path / 'dump.csv'}").tables()._repr_markdown_())
    assert "learnable groups (a hit and a miss) | 100.00 % | 1 |" in text
    with pytest.raises(notebook.CommandError, match=r"missing\.csv"):
        notebook.run(f"recast-report audit {tmp_path / 'missing.csv'}")
