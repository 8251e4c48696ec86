"""The conformance kit: its golden files, planted choices that it must name, planted faults that it must find and make small."""

import json
import math
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from commands import called
from constructor_oracle import expected as oracle

from docs.site.conform_table import held, row
from recast_analysis.cli import main
from recast_analysis.conform.advantage_formulas import FORMULAS
from recast_analysis.conform.cases import Case, LossCase
from recast_analysis.conform.conform_error import ConformError
from recast_analysis.conform.formula import advantages
from recast_analysis.conform.golden import FOLDER, SUMS, VERSIONS, document, golden
from recast_analysis.conform.golden_batches import reward_cases
from recast_analysis.conform.judge import Verdict, judge
from recast_analysis.conform.judged_target import ADAPTERS, Target, load_target
from recast_analysis.conform.loss_formulas import LOSS, loss
from recast_train.adapters import conform_ours

FEW = 4  # random batches
SHARES = ("max_rl", "reward_share")  # of rewards that are not below 0
ORACLES = ("grpo", "dr_grpo", "rloo", "gpg", "reinforce_pp", "reinforce_pp_baseline", "max_rl", "ngrpo", "w_reinforce")
ADDED = ("pass_at_k", "pods", "two_grpo", "bnpo", "reward_share", "exp_reward_sft")
OUT = {1: "3f4e1eb01e9bfaee", 2: "2c76fd4849a0a7fc"}  # the hashes of their SHA256SUMS
PAGE = Path(__file__).parents[3] / "docs" / "conform.md"


# golden files


@pytest.mark.parametrize(("kind", "version"), [(kind, version) for kind, versions in VERSIONS.items() for version in versions])
def test_the_files_hold_what_the_formulas_say(kind: str, version: int) -> None:
    folder = FOLDER / f"golden-v{version}"
    stored = json.loads((folder / f"{kind}.json").read_text())
    assert stored == json.loads(json.dumps(document(kind, version)))
    table = pl.read_parquet(folder / f"{kind}.parquet")
    assert table["expected"].to_list() == [value for row in stored["expected"] for value in row["values"]]
    assert set(table["version"]) == {version}


def test_a_version_that_is_out_never_changes() -> None:
    """Later batches and methods go into a folder of their own."""
    sums = {version: (FOLDER / f"golden-v{version}" / SUMS).read_bytes() for version in (1, 2)}
    assert {version: sha256(content).hexdigest()[:16] for version, content in sums.items()} == OUT
    for version, content in sums.items():
        for line in content.decode().splitlines():
            wanted, name = line.split()
            assert sha256((FOLDER / f"golden-v{version}" / name).read_bytes()).hexdigest() == wanted


def test_all_versions_are_read() -> None:
    first, second = (json.loads((FOLDER / f"golden-v{version}" / "advantages.json").read_text()) for version in (1, 2))
    assert [case.name for case in golden("advantages").cases] == [case["name"] for case in first["cases"] + second["cases"]]
    assert {method for method, _, _ in golden("advantages").expected} == first["methods"].keys() | second["methods"].keys()
    assert golden("advantages").cases == reward_cases()


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    for version in (1, 2):
        shutil.copytree(FOLDER / f"golden-v{version}", tmp_path / f"golden-v{version}")
    file = tmp_path / "golden-v2" / "advantages.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(ConformError, match=r"golden-v2/advantages.json: differs from its hash in SHA256SUMS"):
        golden("advantages", tmp_path)


@pytest.mark.parametrize("name", [*ORACLES, "psr", "nsr", *ADDED])
def test_the_formulas_are_the_tests_own_oracle(name: str) -> None:
    """Two writings of a paper, by groups padded to one width with rows that do not count."""
    formula, told = FORMULAS[name], 0
    setting = formula.reference() | ({"scale": "exp((r - 1) / T)"} if name == "exp_reward_sft" else {})
    for case in filter(formula.covers, reward_cases()):
        rewards = [one for one in case.rewards if not isinstance(one, list)]
        if len(rewards) < len(case.ids) or (name in SHARES and min(one or 0 for one in rewards) < 0):
            continue
        rows = {key: [row for row, other in enumerate(case.ids) if other == key] for key in dict.fromkeys(case.ids)}
        if any(all(rewards[row] is None for row in group) for group in rows.values()):
            continue
        width = max(map(len, rows.values()))
        padded = [group + [-1] * (width - len(group)) for group in rows.values()]
        live = [[row >= 0 and rewards[row] is not None for row in group] for group in padded]
        numbers = [[rewards[row] if row >= 0 and rewards[row] is not None else 0.0 for row in group] for group in padded]
        found = oracle(name, {"rewards_PG": numbers, "valid_PG": live}, conform_ours.CONFIG)
        wanted = [0.0] * len(rewards)
        flat = [row for group in padded for row in group]
        for place, (number,) in zip(found.rows, found.numbers, strict=True):
            wanted[flat[place]] = number
        given = advantages(formula, case.rewards, case.ids, setting)
        given = case.lined_up(given, wanted) if formula.interchangeable else given
        assert given == pytest.approx(wanted, rel=1e-9, abs=1e-9)
        told += any(wanted)
    assert told > (1 if name == "two_grpo" else 4 if name == "pods" else 8)


# planted choices


def planted(method: str, setting: dict[str, str]) -> Target:
    """The written-out formula under a setting, as a trainer's float32 code has it."""

    def by_reward(rewards: np.ndarray, ids: list[object]) -> np.ndarray:
        table = [[None if math.isnan(one) else float(one) for one in row] for row in rewards.reshape(len(ids), -1)]
        rows = [row[0] if len(row) == 1 else row for row in table]
        return np.array(advantages(FORMULAS[method], rows, ids, setting), dtype=np.float32)

    def by_token(*tables: np.ndarray) -> float:
        return loss(*(table.tolist() for table in tables), setting)

    if method == "loss":
        return Target("planted", by_token, kind="loss", method=method)
    return Target("planted", by_reward, method=method, functions=True)


CHOICES = [
    (method, name, option)
    for method, formula in {**FORMULAS, "loss": LOSS}.items()
    if method in ("grpo", "rloo", "gdpo", "loss")
    for name, options in formula.choices.items()
    for option in options
    if name != "equal rewards" and (method != "gdpo" or name == "each function's")
]


@pytest.mark.parametrize(("method", "name", "option"), CHOICES)
def test_a_documented_choice_is_named(method: str, name: str, option: str) -> None:
    formula = LOSS if method == "loss" else FORMULAS[method]
    verdict = judge(planted(method, {**formula.reference(), name: option}), batches=FEW)
    assert not verdict.faults
    assert verdict.setting == {**formula.reference(), name: option}
    assert [f.what for f in verdict.findings if f.verdict == "choice"] == (
        [name] if option != formula.reference()[name] else []
    )
    assert verdict.explained == verdict.asked


def float32_grpo(rewards: np.ndarray, ids: list[object]) -> np.ndarray:
    found = np.zeros(len(ids), dtype=np.float32)
    for key in set(ids):
        rows = [row for row, name in enumerate(ids) if name == key and not np.isnan(rewards[row])]
        group = rewards[rows].astype(np.float32)
        if len(rows) > 1:
            mean = np.float32(sum(group.tolist()) / len(rows) * (1 + 2**-24))
            found[rows] = (group - mean) / (group.std(ddof=1) + np.float32(1e-6))
    return found


def test_a_method_is_found_and_rounding_of_equal_rewards_named() -> None:
    verdict = judge(Target("mine", float32_grpo), batches=FEW)
    assert (verdict.method, verdict.faults) == ("grpo", [])
    assert verdict.setting["equal rewards"].startswith("0 up to float32 rounding")


def test_a_refusal_is_a_choice() -> None:
    def strict(rewards: np.ndarray, ids: list[object]) -> np.ndarray:
        if np.isnan(rewards).any():
            raise ValueError("no NaN here")
        return planted("grpo", FORMULAS["grpo"].reference()).function(rewards, ids)

    verdict = judge(Target("strict", strict, method="grpo"), batches=FEW)
    assert not verdict.faults
    assert [(f.what, f.says) for f in verdict.findings if f.verdict == "choice"] == [
        ("missing reward", "refused: ValueError: no NaN here")
    ]


# planted faults


def variant(change: str) -> Target:
    """grpo with one thing wrong."""
    formula = FORMULAS["grpo"]
    state = {"calls": 0}

    def wrong(rewards: np.ndarray, ids: list[object]) -> object:
        state["calls"] += 1
        if change == "merges ids":
            ids = [int(name) if str(name).isdigit() else name for name in ids]
        if change == "sorts rows":
            ids = sorted(ids, key=str)
        if change == "shape":
            return np.zeros((len(ids), 1))
        found = planted("grpo", formula.reference()).function(rewards, ids)
        if change == "changes its input":
            rewards -= 1
        if change == "remembers":
            found = found + 1e-3 * state["calls"]
        return found

    return Target(change, wrong, method="grpo")


def is_smallest(target: Target, verdict: Verdict) -> bool:
    """Nothing simpler than the smallest batch of any fault fails."""
    formula = LOSS if target.kind == "loss" else FORMULAS[verdict.method]

    def fails(case: Case | LossCase) -> bool:
        wanted = case.expected(formula, verdict.setting)  # type: ignore[arg-type]
        found = np.asarray(target.function(*case.arguments())).reshape(-1)
        rows = zip(found, wanted, case.tolerance(wanted, verdict.setting), strict=True)
        return any(not abs(one - other) <= within for one, other, within in rows)

    for fault in verdict.faults:
        given = {name: value for name, value in fault.minimal.items() if name in ("rewards", "ids")}
        case = Case("", "", **given, half="dtype" in fault.minimal)
        assert fails(case)
        if any(fails(other) for other in case.smaller() if other.ids):
            return False
    return bool(verdict.faults)


def test_ids_that_are_merged_are_a_fault_of_two_rows() -> None:
    verdict = judge(variant("merges ids"), batches=FEW)
    (fault,) = verdict.faults
    assert fault.what == "digit ids"
    assert fault.minimal["rewards"] in ([0.0, 1.0], [1.0, 0.0])
    assert len({int(name) for name in fault.minimal["ids"]}) == 1
    assert is_smallest(variant("merges ids"), verdict)


def test_rows_that_lose_their_group_are_a_fault() -> None:
    verdict = judge(variant("sorts rows"), batches=FEW)
    assert {"order of rows"} <= {fault.what for fault in verdict.faults}
    assert is_smallest(
        variant("sorts rows"), Verdict(**{**vars(verdict), "findings": [f for f in verdict.faults if f.minimal]})
    )


@pytest.mark.parametrize(("change", "what"), [("changes its input", "inputs"), ("remembers", "same again")])
def test_broken_properties_are_faults(change: str, what: str) -> None:
    assert what in {fault.what for fault in judge(variant(change), batches=FEW).faults}


def test_an_answer_of_another_shape_is_said() -> None:
    with pytest.raises(ConformError, match=r"raises on every batch \(ValueError: returned shape \(12, 1\), expected \(12,\)\)"):
        judge(variant("shape"))


def test_a_pull_that_is_not_the_closed_form_is_a_fault() -> None:
    """Half of it on five hits of eight alone, which no golden batch and no random one has."""

    def halved(rewards: np.ndarray, ids: list[object]) -> np.ndarray:
        found, ids_N = planted("grpo", FORMULAS["grpo"].reference()).function(rewards, ids), np.array(ids, dtype=object)
        for name in set(ids):
            rows = ids_N == name
            found[rows] /= 2 if (rows.sum(), rewards[rows].sum(dtype=float)) == (8, 5) else 1
        return found

    (fault,) = judge(Target("halved", halved, method="grpo"), batches=FEW).faults
    assert fault.what == "closed form"
    assert fault.says.startswith("gradient weight at hit rate 0.5 of G = 8: ")


# ours, the command, and what it loads


@pytest.mark.parametrize(("target", "method"), held("recast"))
def test_ours_pass_and_stand_on_the_page(target: str, method: str | None) -> None:
    said = row(target, method)
    assert said.endswith("|  |")  # no fault
    assert said in PAGE.read_text().splitlines(), "python -m docs.site.conform_table recast prints it again"


def test_a_library_that_is_not_known_has_no_table() -> None:
    with pytest.raises(ConformError, match="'nemo' is no library here; choose from recast, trl, verl"):
        held("nemo")


USERS = """
def four(rewards, ids):
    import numpy as np
    found = np.zeros(len(ids))
    for name in set(ids):
        rows = [row for row, other in enumerate(ids) if other == name]
        group = np.asarray(rewards, float)[rows]
        found[rows] = (group - group.mean()) / (group.std(ddof=0) + 1e-4)
    return found


def bad(rewards, ids):
    found = four(rewards, [str(name).lstrip("0") for name in ids])
    return found


NUMBER = 4
"""


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "users.py"
    file.write_text(USERS)
    good = called(main, "conform", f"{file}:four", "--out", tmp_path / "out")
    assert good.returncode == 0, good.stderr
    assert "users.py:four as grpo: 35 of 35 golden batches explained" in " ".join(good.stdout.split())
    assert all(len(line.rstrip()) <= 100 for line in good.stdout.splitlines())
    written = json.loads((tmp_path / "out" / "conform.json").read_text())
    assert (written["setting"]["ddof"], written["setting"]["denominator"], written["faults"]) == ("0", "std + 1e-4", 0)
    bad = called(main, "conform", f"{file}:bad", "--json")
    assert bad.returncode == 1
    assert [finding["what"] for finding in json.loads(bad.stdout)["findings"] if finding["verdict"] == "fault"] == ["digit ids"]
    for target, said in (
        ("", "target: missing; give module:function"),
        ("four", "target: 'four' names no function"),
        (f"{file}:five", "users.py has no 'five'"),
        (f"{file}:NUMBER", "is a int; name a function"),
        ("no_such_module:f", "cannot be loaded (ModuleNotFoundError"),
        ("recast:recast", "needs structural_PG, has_anchor_P beside the rewards"),
        ("recast:nope", "recast:nope is not known; choose from grpo, dr_grpo, rloo"),
    ):
        done = called(main, "conform", *filter(None, [target]))
        assert done.returncode == 2
        assert said in done.stderr
    assert "--method: 'x' has no formula" in called(main, "conform", f"{file}:four", "--method", "x").stderr
    said = called(main, "conform", f"{file}:four", "--method", "loss").stderr
    assert "--method: 'loss' is no formula of advantages, which" in said


def test_a_library_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "verl", ("no_such_adapter", "verl"))
    with pytest.raises(ConformError, match=r"verl:grpo needs no_such_adapter; pip install 'recast-rl\[verl\]'"):
        load_target("verl:grpo")


def test_a_users_function_is_judged_without_torch(tmp_path: Path) -> None:
    (tmp_path / "users.py").write_text(USERS)
    code = (
        "import sys\nfrom recast_analysis.conform.judge import judge\n"
        "from recast_analysis.conform.judged_target import load_target\n"
        f"judge(load_target({str(tmp_path / 'users.py') + ':four'!r}))\n"
        "print({'torch', 'polars', 'recast_train', 'recast_sim.signal'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
