"""Constructors of one's own: from a file, a module, an installed package and a notebook cell, in commands and in workers."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from own_constructors import NAME, TEXT, write_own

SIM = [sys.executable, "-c", "from recast_sim.cli import main; main()"]
SWEEP = """
[setting]
regime = []
convergence = 0.8
[setting.environment]
items = 30
sizes = [4, 4, 4]
dim = 4
train_prompts = 64
heldout_prompts = 32
validation_prompts = 32
[setting.training]
group_size = 8
prompts_per_step = 8
steps = 4
evaluate_every = 2
[protocol]
methods = ["grpo", "METHOD"]
learning_rates = [0.1]
seeds = 2
tuning_seeds = 1
metrics = ["pass_at_1_greedy"]
"""
WORLD = ["--environment.items", "30", "--environment.sizes", "4", "4", "4", "--environment.train-prompts", "64"]
WORLD += ["--environment.heldout-prompts", "32"]


def call(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [*SIM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | settings)


def in_process(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
def test_a_file_is_loaded_by_commands_and_workers_and_kept_by_the_run(tmp_path: Path) -> None:
    file, sweep, out = write_own(tmp_path), tmp_path / "sweep.toml", tmp_path / "out"
    sweep.write_text(SWEEP.replace("METHOD", f"{NAME} w_minus=0.5"))
    done = call("budget", sweep, "--plugin", file, "--out", out, "--workers", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert f"{NAME} w_minus=0.5" in json.loads(done.stdout)["metrics"]["pass_at_1_greedy"]
    (kept,) = json.loads((out / "manifest.json").read_text())["plugins"]
    assert kept == {"name": str(file), "sha256": sha256(TEXT.encode()).hexdigest(), "source": TEXT}
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    file.write_text(TEXT + "# another\n")
    changed = call("budget", sweep, "--plugin", file, "--out", out, "--resume")
    assert changed.returncode == 2
    assert "mine.py is not loaded, or has changed since the run began" in changed.stderr


@pytest.mark.slow
def test_a_module_and_a_file_in_front_of_a_name(tmp_path: Path) -> None:
    write_own(tmp_path, name="my_module.py")
    settings = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    for name in (f"my_module:{NAME}", f"{tmp_path / 'my_module.py'}:{NAME}"):
        done = call("gradients", "--no-calibrate", "--constructors", name, "--group-sizes", 4, "--prompts", 32, *WORLD,
                    "--out", tmp_path / f"run-{name[0]}", "--json", **settings)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["reports"][0]["learnable"] > 0.99
    for option in (("--plugin", "my_module"), (f"--plugin={tmp_path / 'my_module.py'}",)):
        listed = call("constructors", *option, "--json", **settings)
        assert NAME in {row["name"] for row in json.loads(listed.stdout)}


def test_an_installed_package_needs_no_option(tmp_path: Path) -> None:
    write_own(tmp_path, name="installed_constructors.py")
    info = tmp_path / "own-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[recast.constructors]\nmine = installed_constructors\n")
    done = call("constructors", "--json", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert NAME in {row["name"] for row in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be loaded (FileNotFoundError: no such file)"),
        ("import this is wrong", "cannot be loaded (SyntaxError"),
        ("import no_such_module_of_ours", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module_of_ours'"),
        ("x = 1", "registers no constructor; decorate a function with @recast_sim.signal.register"),
        (TEXT.replace(NAME, "grpo"), "constructor 'grpo' exists already"),
        (TEXT.replace("all_zero=\"repaired\"", "all_zero=\"magic\""), "all_zero 'magic' must be one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_one_line_before_anything_else(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    done = call("budget", "--plugin", file, "--protocol.seeds", 0, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"recast-sim: error: --plugin: {file}: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_says_how_to_load_ones_own() -> None:
    done = call("train", "--training.constructor", "mine_of_nobody")
    assert done.returncode == 2
    assert "'mine_of_nobody' is not registered" in done.stderr
    assert "--plugin FILE.py" in done.stderr


def cells(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


PROTOCOL = """
from pathlib import Path
from recast_sim.configio import load_config
from recast_sim.cli.budget import BudgetConfig
from recast_sim.experiments.protocol import run_protocol
from recast_sim.runs.sweep import open_sweep
config = load_config(BudgetConfig, Path("sweep.toml"))
with open_sweep(Path("out/jobs"), "local", 1) as submit:
    run_protocol({"base": config.setting}, config.protocol, 0, Path("out/methods"), submit)
print(sorted(file.name for file in Path("out/methods").iterdir()))
"""


@pytest.mark.slow
def test_a_cell_of_a_notebook_reaches_workers_and_commands(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("METHOD", NAME))
    command = f"from recast_analysis.notebook import run\nprint({NAME!r} in run('recast-sim constructors').text)"
    notebook = cells(TEXT, PROTOCOL, command)
    settings = {"timeout": 300, "resources": {"metadata": {"path": str(tmp_path)}}, "kernel_name": "python3"}
    done = NotebookClient(notebook, **settings).execute(env=dict(os.environ))
    assert "runs.parquet" in done.cells[1].outputs[-1]["text"]
    assert (tmp_path / "out" / "jobs" / "constructors-1.py").read_text() == TEXT
    assert done.cells[2].outputs[-1]["text"] == "True\n"


@pytest.mark.slow
def test_a_cell_that_needs_another_cell_says_so_before_the_sweep_works(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("METHOD", NAME))
    head, body = TEXT.split("\n\n\n")
    notebook = cells(head, body, PROTOCOL)
    settings = {"timeout": 300, "resources": {"metadata": {"path": str(tmp_path)}}, "kernel_name": "python3"}
    done = NotebookClient(notebook, allow_errors=True, **settings).execute(env=dict(os.environ))
    said = json.dumps(done.cells[2].outputs)
    assert "put its imports and helpers into it" in said
    assert "NameError" in said
    assert not list((tmp_path / "out" / "jobs").glob("*.json"))


def test_what_was_typed_in_has_no_source(tmp_path: Path) -> None:
    code = TEXT + "from pathlib import Path\nfrom recast_sim.plugins import for_workers\nfor_workers(Path('out'), None)\n"
    done = in_process(code, tmp_path)
    assert f"constructor '{NAME}': typed in" in done.stderr
    assert "--plugin FILE" in done.stderr


def test_a_file_that_changed_is_not_taken_for_the_one_that_was_loaded(tmp_path: Path) -> None:
    write_own(tmp_path)
    code = """
from pathlib import Path
from recast_sim.plugins import PluginError, load_plugin
import recast_sim.signal
assert load_plugin("mine.py") is load_plugin("mine.py")
file = Path("mine.py")
file.write_text(file.read_text() + "# more")
try:
    load_plugin("mine.py")
except PluginError as error:
    print(error)
"""
    assert "mine.py: has changed since it was loaded; start a new process" in in_process(code, tmp_path).stdout
