"""`recast-train data describe`: figures by hand on small files, tables, JSON, and one line for a bad path."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_files import SIDS, index_text, sid, write_minionerec, write_openonerec

from recast_train.cli import main
from recast_train.data import DataConfig, DataError, Prompts
from recast_train.data.describe import popularity
from recast_train.data.references import policy_of, repeats, target_rank


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recast-train", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_popularity_by_hand() -> None:
    assert popularity(np.array([2, 2, 2, 2])) == pytest.approx({"gini": 0.0, "top_tenth_share": 0.25})
    count = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 7])  # the tenth of 12 is 2 items
    between = np.abs(count[:, None] - count).sum() / (2 * len(count) ** 2 * count.mean())
    assert popularity(count) == pytest.approx({"gini": between, "top_tenth_share": 1.0})


def test_describe_counts_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(f"u{user}", f"i{place}", place // 2) for user in range(4) for place in range(10 + user)]
    pl.DataFrame(rows, schema=["who", "what", "when"], orient="row").write_csv(tmp_path / "a.csv")
    names = ("--columns.user", "who", "--columns.item", "what", "--columns.timestamp", "when")
    assert command_line(monkeypatch, "data", "describe", str(tmp_path / "a.csv"), *names, "--core", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["users"], found["items"], found["interactions"]) == ("table", 4, 13, 46)
    assert found["lengths"] == {"min": 10, "median": 11.5, "max": 13}
    assert found["tied_in_time"] == pytest.approx(44 / 46)  # all but the last item of the two odd sequences
    assert found["prompts"] == {"train": 34, "validation": 4, "test": 4}
    assert found["references"]["test_prompts"] == 4
    assert set(found["references"]["metrics"]["sequential"]) == {"seen_filtered", "unfiltered"}


def test_a_file_that_holds_a_copy_of_itself_is_noticed(tmp_path: Path, monkeypatch, capsys) -> None:
    rows = [(f"u{user}", f"i{place}", 10 * place + user) for user in range(4) for place in range(6)]
    for copies in (1, 2):
        pl.DataFrame(rows * copies, schema=["user", "item", "timestamp"], orient="row").write_csv(tmp_path / "a.csv")
        assert command_line(monkeypatch, "data", "describe", str(tmp_path / "a.csv"), "--core", "1", "--json") == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert [note.partition(" repeat ")[0] for note in notes] == ["24 of 48 interactions (50.0%)"] * (copies - 1)


def test_describe_takes_a_pair_of_cores_and_a_split(tmp_path: Path, monkeypatch, capsys) -> None:
    rows = [(f"u{user}", f"i{place}", 10 * place + user) for user in range(4) for place in range(10 + user)] + [
        ("late", "i0", 999)
    ]
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_csv(tmp_path / "a.csv")
    asked = ("--core", "2", "4", "--split.rule", "leave-one-out")
    assert command_line(monkeypatch, "data", "describe", str(tmp_path / "a.csv"), *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["users"], found["items"], found["split"]) == (4, 10, "leave-one-out")
    assert found["dropped"] == {"users": 1, "items": 3, "interactions_of_users": 1, "interactions_of_items": 6}
    assert found["prompts"] == {"train": 28, "validation": 4, "test": 4}
    assert command_line(monkeypatch, "data", "describe", str(tmp_path / "a.csv"), *asked) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "| dropped by the item core | 3 items, 6 interactions |" in words
    assert "| split | leave-one-out |" in words


def test_a_data_set_that_is_fetched_goes_by_its_name(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def read(config: DataConfig) -> None:
        asked.append((config.format, config.path))
        raise DataError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recast_train.cli.data.read_source", read)
    assert command_line(monkeypatch, "data", "describe", "yoochoose-100k") == 2
    assert asked == [("yoochoose-100k", None)]


def test_tables_fit_the_terminal_unless_they_shall_be_wide(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = str(write_minionerec(tmp_path / "x"))
    monkeypatch.setenv("COLUMNS", "60")
    for wide in (False, True):
        assert command_line(monkeypatch, "data", "describe", folder, "--prompts", "1", *["--wide"] * wide) == 0
        *lines, then = capsys.readouterr().out.replace(" \\\n   ", "").splitlines()
        assert (max(len(line) for line in lines if line.startswith("|")) > 60) == wide
        assert then == f"next: recast-train tokenize --data.format minionerec --data.path {folder}"


@pytest.mark.parametrize(("write", "users"), [(write_minionerec, 3), (write_openonerec, 6)])
def test_describe_prints_prompt_formats(tmp_path: Path, monkeypatch, capsys, write, users: int) -> None:
    folder = str(write(tmp_path / "x"))
    assert command_line(monkeypatch, "data", "describe", folder, "--prompts", "1") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"| users | {users} |" in words
    assert "| semantic IDs given | 3 x 3 x 2 |" in words
    assert "references on 1 test prompts" in words


def test_items_that_share_an_id_are_read_and_their_share_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = write_minionerec(tmp_path / "m")
    (folder / "toys.index.json").write_text(index_text(SIDS | {"6": SIDS["1"]}))
    for file in folder.rglob("*.csv"):
        file.write_text(file.read_text().replace(sid("6"), sid("1")))
    assert command_line(monkeypatch, "data", "describe", str(folder)) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "| items that share their semantic ID with another | 25.0% |" in words
    assert "Items share semantic IDs: IDs are ranked" in words
    assert "read as minionerec: the folder holds an index.json" in words
    assert command_line(monkeypatch, "data", "describe", str(folder), "--json") == 0
    assert json.loads(capsys.readouterr().out)["shared_sids"] == 0.25


def test_what_may_be_two_things_is_refused_with_what_to_say(tmp_path: Path, monkeypatch, capsys) -> None:
    rows = [f"{user}\t{item}\t3\t{88 * 10**7 + item}\n" for user in range(9) for item in range(7)]
    (tmp_path / "u.data").write_text("".join(rows))
    assert command_line(monkeypatch, "data", "describe", str(tmp_path / "u.data")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "looks like a table without a header (4 columns parted by tabs, the last of times, the first with repeats)" in error
    said = error.partition("for example ")[2].split()
    assert command_line(monkeypatch, "data", "describe", str(tmp_path / "u.data"), *said, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["users"], found["items"], found["interactions"]) == (9, 7, 63)


def test_a_bad_path_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("word\n")
    for arguments in ((str(tmp_path / "x.txt"),), (str(tmp_path / "lost"),), ("--prompts", "0")):
        assert command_line(monkeypatch, "data", "describe", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert arguments[0] in error


def test_repeats_choose_the_filter_and_are_told(tmp_path: Path, monkeypatch, capsys) -> None:
    walks = {"again": [0, 1, 2] * 4, "new": list(range(12)), "some": [*range(11), 3]}
    for name, walk in walks.items():
        rows = [(f"u{user}", f"{user % 2}-{item}", place) for user in range(6) for place, item in enumerate(walk)]
        path = tmp_path / f"{name}.csv"
        pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_csv(path)
        assert command_line(monkeypatch, "data", "describe", str(path), "--core", "1", "--json") == 0
        known = json.loads(capsys.readouterr().out)["references"]
        share = {"again": 1.0, "new": 0.0, "some": 1.0}[name]
        assert known["targets_seen_before"] == share
        assert known["policy"] == ("unfiltered" if share else "seen_filtered")
        assert command_line(monkeypatch, "data", "describe", str(path), "--core", "1") == 0
        words = " ".join(capsys.readouterr().out.split())
        assert f"targets seen before: {100 * share:.0f} %, so that {known['policy'].replace('_', ' ')} is the metric" in words
        assert "hr@10, seen filtered" in words
        assert "hr@10, unfiltered" in words
    assert known["metrics"]["popularity"]["seen_filtered"]["hr@10"] == 0.0


def test_shares_of_targets_seen_before_by_hand() -> None:
    targets, seen = np.array([[1, 3], [2, -1], [2, -1]]), np.array([1, 0, 2])
    ask = Prompts(np.array([[1], [0], [2]]), targets, np.arange(3), np.array([0, 2, 2, 3]), seen)
    assert repeats(ask).tolist() == [0.5, 0.0, 1.0]
    assert policy_of(np.array([0.0] * 96 + [1.0] * 4)) == "seen_filtered"
    assert policy_of(np.array([0.0] * 95 + [1.0] * 5)) == "unfiltered"
    assert policy_of(np.array([])) == "seen_filtered"


def test_the_best_of_several_targets_is_ranked() -> None:
    scores = np.array([[5.0, 4.0, 4.0, 1.0], [5.0, 4.0, 4.0, 1.0], [5.0, 5.0, 5.0, 5.0], [5.0, 4.0, 3.0, 2.0]])
    targets = np.array([[3, 1, -1], [1, 2, -1], [0, 1, 2], [0, 3, -1]])
    seen = np.array([1, 0, 0, 0, 3])
    ask = Prompts(np.array([[1], [0], [0], [3]]), targets, np.arange(4), np.array([0, 1, 2, 3, 5]), seen)
    assert target_rank(scores, ask, seen_filter=False).tolist() == [3, 2, 2, 1]  # other targets are no rivals
    assert target_rank(scores, ask, seen_filter=True).tolist() == [3, 1, 2, np.inf]
