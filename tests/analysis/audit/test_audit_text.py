"""Text as it really comes: SIDs with something between their tokens, halves of characters, encodings, separators, booleans."""

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from audit_dumps import grouped, sizes, verl_step, write_lines

from recast_analysis.audit.audit_error import AuditError

SID = tuple[str, str, str]
BETWEEN: dict[str, Callable[[SID], str]] = {
    "nothing": "".join,
    "blanks": " ".join,
    "line ends": "\n".join,
    "carriage returns": "\r\n".join,
    "commas": ",".join,
    "commas and blanks": ", ".join,
    "tabs": "\t".join,
    "bars": " | ".join,
    "no-break spaces": "\u00a0".join,
    "a list": lambda sid: json.dumps(list(sid)),
    "marks around": lambda sid: f"<|sid_begin|> {' '.join(sid)} <|sid_end|>",
    "a thought before": lambda sid: f"<think> <a_9> <b_9> </think>\n{' '.join(sid)}",
    "a second SID": lambda sid: f"{' '.join(sid)} , <a_1> <b_1> <c_1>",
    "a second SID at once": lambda sid: "".join(sid) + "<a_1><b_1><c_1>",
}


def faults(path: Path) -> tuple[int, int, int]:
    """Levels, and rows whose SID is missing or malformed."""
    groups = grouped(path)
    assert groups.rules.sids is not None
    return groups.rules.sids.levels, groups.table["sid_missing"].sum(), groups.table["sid_malformed"].sum()


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("prefix", ["", "s_"])
def test_levels_are_told_by_their_names(between: str, prefix: str, tmp_path: Path) -> None:
    def output(p: int, r: int) -> str:
        return BETWEEN[between]((f"<{prefix}a_{p}>", f"<{prefix}b_{r}>", f"<{prefix}c_{p * r % 4}>"))

    path = write_lines(tmp_path / "1.jsonl", verl_step(1, output=output))
    assert faults(path) == (3, 0, 0)
    for name, join in {"tight": "".join, "blanks": " ".join, "commas": ", ".join}.items():
        known = [join([f"<{prefix}a_{p}>", f"<{prefix}b_{r}>", f"<{prefix}c_{p * r % 4}>"]) for p in range(3) for r in range(4)]
        (tmp_path / name).write_text("\n".join(known))
        assert grouped(path, items=tmp_path / name).table["sid_unknown"].sum() == 12


@pytest.mark.parametrize(
    "output",
    [
        "<a_1> <b_2>", "<b_1> <a_2> <c_3>", "<a_1> <c_3> <b_2>", "<a_1> <b_2> <c_3> <d_4>", "<a_1> <a_2> <b_3> <c_4>", "<c_1>",
    ],
)  # fmt: skip
def test_what_is_malformed_stays_malformed_with_blanks(output: str, tmp_path: Path) -> None:
    rows = verl_step(1, output=lambda p, r: output if r == 0 else f"<a_{p}> <b_{r}> <c_0>")
    assert faults(write_lines(tmp_path / "1.jsonl", rows)) == (3, 0, 6)


@pytest.mark.parametrize("half", ["\udc80", "\ud83dx", "\ude00\ud83d", "\\\udc80"])
@pytest.mark.parametrize("field", ["input", "output", "gts", "uid", "another", "nested", "name"])
def test_half_a_character_is_read_as_the_replacement(half: str, field: str, tmp_path: Path) -> None:
    columns: dict[str, Callable[[int, int], object]] = {
        "input": lambda p, r: f"user {p}{half}",
        "output": lambda p, r: f"<a_{p}><b_{r}>{half if p == r == 1 else ''}",
        "gts": lambda p, r: half,
        "uid": lambda p, r: f"{p}{half}",
        "another": lambda p, r: half,
        "nested": lambda p, r: [{half: half}],
        half: lambda p, r: 1,
    }
    name = half if field == "name" else field
    path = write_lines(tmp_path / "1.jsonl", verl_step(1, **{name: columns[name]}))
    groups = grouped(path)
    assert sizes(groups) == [(4, 6)]
    assert groups.table["distinct"].to_list() == [4] * 6
    assert sorted(groups.table["hits"]) == [0, 0, 1, 1, 2, 2]


def test_halves_of_characters_are_no_words_of_their_own(tmp_path: Path) -> None:
    """polars reads a lone high surrogate as a NUL and stops there: two outputs that go on differently would be the same."""
    rows = verl_step(1, output=lambda p, r: f"\ud83d word {r}", extra=lambda p, r: "\ud83d\ude00")
    table = grouped(write_lines(tmp_path / "1.jsonl", rows)).table
    assert table["distinct"].to_list() == [4] * 6
    assert table["response_length"].to_list() == [12] * 6
    bad = [*rows, rows[0] | {"score": "\udc80"}]
    with pytest.raises(AuditError, match="line 25, column score: found '\ufffd'; write it as Float64"):
        grouped(write_lines(tmp_path / "2.jsonl", bad))


TABLE = "step,prompt_id,reward,completion\n" + "".join(f"1,{i // 4},{{{int(i % 4 < i // 4)}}},x{i}\n" for i in range(20))


@pytest.mark.parametrize(
    "words",
    [("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ('"False"', '"True"'), ("0", "True"), ("0", "1"), ("0.0", "1.0")],
)
def test_booleans_are_read_from_csv(words: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TABLE.format(*words))
    table = grouped(path).table
    assert sorted(table.select("hits", "rows").rows()) == [(hits, 4) for hits in range(5)]


@pytest.mark.parametrize("words", [("no", "yes"), ("F", "T"), ("", "True"), (" False", "True")])
def test_other_words_are_no_booleans(words: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE.format(*words))
    with pytest.raises(AuditError, match=f"line 2, column reward: found {words[0]!r}; write a finite number"):
        grouped(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(TABLE.format("0", "1").replace("\n1,", "\nTrue,"))
    with pytest.raises(AuditError, match="line 2, column step: found 'True'; write a whole number"):
        grouped(tmp_path / "b.csv")


@pytest.mark.parametrize(
    ("mark", "words"), [("\t", "tabs"), (";", "semicolons"), ("|", "bars"), (" ", "blanks"), ("  ", "blanks"), (":", "colons")]
)
def test_a_wrong_separator_is_named(mark: str, words: str, tmp_path: Path) -> None:
    for text, line in ((TABLE, 1), ("\n" + TABLE, 2)):
        (tmp_path / "a.csv").write_text(text.format("0", "1").replace(",", mark))
        with pytest.raises(AuditError, match=f"line {line}: 'step.* is separated by {words}; write commas"):
            grouped(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('"step";"prompt_id";"reward"', "semicolons"),
        ('step;"prompt, id";reward', "semicolons"),
        ("step	prompt, id	reward", "tabs"),
    ],
)
def test_a_wrong_separator_is_named_though_names_hold_commas(header: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1;2;0,5\n")
    with pytest.raises(AuditError, match=f"is separated by {words}"):
        grouped(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["the whole completion of it", '"comp\tletion"', "a;b", "a:b c"])
def test_other_marks_may_stand_in_names(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE.format("0", "1").replace("completion", name))
    assert sizes(grouped(tmp_path / "a.csv")) == [(4, 5)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_text_is_named(encoding: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "1.jsonl", verl_step(1))
    message = f"text in {encoding[:6].upper()}; save it as UTF-8"
    for text in (TABLE.format("0", "1"), lines.read_text()):
        (tmp_path / "wide").write_bytes(text.encode(encoding))
        with pytest.raises(AuditError, match=message):
            grouped(tmp_path / "wide")
    (tmp_path / "items").write_bytes("<a_1><b_1><c_1>\n".encode(encoding))
    with pytest.raises(AuditError, match=message):
        grouped(lines, items=tmp_path / "items")


@pytest.mark.parametrize("depth", [300, 960, 975, 985, 990, 100_000])
def test_what_is_nested_too_deeply_is_one_error(depth: int, tmp_path: Path) -> None:
    more = "[" * depth + "]" * depth
    completion = f'[{{"role": "assistant", "content": "\\udc80", "more": {more}}}]'
    row = f'{{"step": 1, "prompt_id": 1, "reward": 1, "completion": {completion}}}\n'
    (tmp_path / "a.jsonl").write_text(4 * row)
    limits = {300: nullcontext(), 100_000: pytest.raises(AuditError, match="line 1")}  # between them it depends on the caller
    with limits.get(depth, suppress(AuditError)):
        assert sizes(grouped(tmp_path / "a.jsonl")) == [(4, 1)]
