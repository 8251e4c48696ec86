"""Whole groups that the sampler writes for verl, and what an audit makes of them and of verl's own dump behind it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recast_analysis.audit.audit_error import AuditError
from recast_analysis.audit.figures_of_audit import audit_summary
from recast_analysis.audit.reading.dump_groups import read_groups
from recast_train.adapters.flat_rows import select_rows
from recast_train.adapters.verl.group_dump import write_groups

pytestmark = pytest.mark.adapters
GROUPS, G = 12, 8


def rewards_of(group: int) -> list[float]:
    """One hit in every third group: 4 of 12, and 8 without any."""
    return [1.0 if group % 3 == 0 and slot == 2 else 0.0 for slot in range(G)]


def queue_rows(step: int) -> dict[str, dict[str, Any]]:
    """Rows as verl's queue holds them: the reward on the last token."""
    rows = {}
    for group in range(GROUPS):
        for slot, reward in enumerate(rewards_of(group)):
            scores = torch.zeros(3)
            scores[-1] = reward
            rows[f"prompt_{step}_{group}_{slot}_0"] = {
                "prompts": torch.tensor([10, 11, group]),
                "responses": torch.tensor([20, slot, step]),
                "rm_scores": scores,
                "reward_model": {"ground_truth": f"target {group}"},
                "extra_fields": {"reward_extra_info": {"score": reward, "structural": slot / 10, "note": "text"}},
            }
    return rows


def decode(tokens: torch.Tensor) -> str:
    return " ".join(f"<{token}>" for token in tokens.tolist())


def write_steps(folder: Path, steps: int = 2) -> None:
    for step in range(1, steps + 1):
        rows = queue_rows(step)
        shuffled = sorted(rows, key=lambda key: key[::-1])
        write_groups(folder, step, shuffled, [rows[key] for key in shuffled], decode)


def test_a_line_holds_what_verl_writes_and_the_reward_functions_other_numbers(tmp_path: Path) -> None:
    write_steps(tmp_path / "deep" / "rollouts", 1)
    lines = [json.loads(line) for line in (tmp_path / "deep/rollouts/1.jsonl").read_text().splitlines()]
    assert lines[2] == {
        "input": "<10> <11> <0>", "output": "<20> <2> <1>", "gts": "target 0", "score": 1.0, "step": 1,
        "uid": "prompt_1_0_2_0", "structural": 0.2,
    }  # fmt: skip
    uids = [line["uid"].rsplit("_", 2) for line in lines]
    assert [int(slot) for _, slot, _ in uids] == list(range(G)) * GROUPS  # sorted by number within a group


def test_a_row_without_a_target_or_extra_numbers_is_written_too(tmp_path: Path) -> None:
    row = {"prompts": torch.tensor([1]), "responses": torch.tensor([2]), "rm_scores": torch.tensor([0.5])}
    path = write_groups(tmp_path, 7, ["u_0_0"], [row], decode)
    assert path.name == "7.jsonl"
    wanted = {"input": "<1>", "output": "<2>", "gts": None, "score": 0.5, "step": 7, "uid": "u_0_0"}
    assert json.loads(path.read_text()) == wanted


def test_the_audit_of_it_counts_the_groups_as_they_were_drawn(tmp_path: Path) -> None:
    write_steps(tmp_path)
    summary = audit_summary(read_groups([tmp_path], 0.5))
    assert (summary["dump"]["groups"], summary["dump"]["group_size"], summary["dump"]["steps"]) == (2 * GROUPS, G, 2)
    regimes = summary["regimes"]
    assert (regimes["all_zero"], regimes["single_hit"]) == pytest.approx((2 / 3, 1 / 3))


def write_kept(folder: Path, constructor: str) -> None:
    """What verl itself writes at the end of a step: the kept rows, coefficients for scores."""
    folder.mkdir()
    for step in (1, 2):
        rows = queue_rows(step)
        keys = list(rows)
        scores = [float(row["rm_scores"].sum()) for row in rows.values()]
        structural = [row["extra_fields"]["reward_extra_info"]["structural"] for row in rows.values()]
        kept = select_rows(
            constructor, [key.rsplit("_", 2)[0] for key in keys], scores, structural, has_anchor_R=[True] * len(keys)
        )
        lines = [
            {
                "input": decode(rows[keys[r]]["prompts"]), "output": f"row {r}", "gts": "x", "score": value, "step": step,
                "uid": keys[r],
            }
            for r, value in zip(kept.row_N.tolist(), kept.coefficient_N.tolist(), strict=True)
        ]  # fmt: skip
        (folder / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("constructor", ["recast", "grpo", "repair_only"])
def test_verls_own_dump_of_kept_rows_is_refused_with_what_to_set(constructor: str, tmp_path: Path) -> None:
    write_kept(tmp_path / "dump", constructor)
    with pytest.raises(AuditError, match=r"'score'.* in each of the 24 groups, as advantages do.*trainer\.rollout_data_dir"):
        read_groups([tmp_path / "dump"], 0.5)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_rewards_of_two_values_are_not_taken_for_advantages(low: float, tmp_path: Path) -> None:
    rows = [
        {"input": f"p{group}", "output": f"o{slot}", "gts": "x", "score": [low, 1.0][group % 3 == slot], "step": 1}
        for group in range(24)
        for slot in range(2)
    ]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_groups([tmp_path], 0.5).table["hits"].sum() == 16  # of 24 groups 16 add up to 0 where a miss is -1


def test_few_groups_are_not_enough_to_tell(tmp_path: Path) -> None:
    rows = [{"step": 1, "prompt_id": p, "reward": value} for p in range(7) for value in (-1.0, 1.0)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_groups([tmp_path], 0.5).table) == 7
    more = "".join(json.dumps({**row, "prompt_id": 7}) + "\n" for row in rows[:2])
    with (tmp_path / "t.jsonl").open("a") as file:
        file.write(more)
    with pytest.raises(AuditError, match="8 groups"):
        read_groups([tmp_path], 0.5)
