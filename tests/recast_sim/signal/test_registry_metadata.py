"""What a constructor declares is what it does, on i.i.d. groups and for every registered name."""

import importlib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from signal_cases import BATCHWISE, WIDTH_TWO, batches, facts

from recast_sim.signal import SignalConfig, SignalError, construct, get_constructor, list_constructors
from recast_sim.signal.declared import acting_shares, all_zero_behaviours, check_declared, declared_width, iid_groups

pytestmark = pytest.mark.property

EVERY = pytest.mark.parametrize("constructor", list_constructors(), ids=lambda c: c.name)


@EVERY
@pytest.mark.parametrize(("G", "p"), [(4, 0.2), (8, 0.05), (9, 0.5)])
def test_the_width_is_reached_and_never_exceeded(constructor, G, p):
    config = SignalConfig(pods_width=3, care_negatives=2, sdpo_negatives=2)
    signal = construct(constructor, **iid_groups(G, p), config=config)
    rows = signal.active_PG.sum(1)
    assert rows.max() == declared_width(constructor.width, G, config)
    assert signal.group_size == G + constructor.appends
    assert signal.plan.rows_N.tolist() == [p * signal.group_size + g for p, g in signal.active_PG.nonzero().tolist()]


@EVERY
@facts
@given(batch=batches(padding="none"))
def test_anchors_come_where_they_are_declared(constructor, batch):
    signal = construct(constructor, **batch, config=WIDTH_TWO)
    wanted = {
        "never": torch.zeros_like(signal.repaired_P),
        "all_zero": batch["has_anchor_P"] & (batch["rewards_PG"] == 0).all(1),
        "always": batch["has_anchor_P"],
    }[constructor.anchors]
    assert torch.equal(signal.repaired_P, wanted)
    assert constructor.off_policy == (constructor.anchors != "never")
    assert constructor.off_policy or not signal.plan.anchor_N.any()
    if constructor.appends:
        assert (signal.anchor_slot_P[wanted] == batch["rewards_PG"].shape[1]).all()


@EVERY
@facts
@given(batch=batches(padding="none"))
def test_hits_before_are_the_sampled_ones(constructor, batch):
    signal = construct(constructor, **batch, config=WIDTH_TWO)
    assert torch.equal(signal.hits_before_P, batch["rewards_PG"].long().sum(1))
    assert signal.regime_before == construct("grpo", **batch).regime_before


@EVERY
def test_an_all_zero_group_behaves_as_declared(constructor):
    behaves = all_zero_behaviours(constructor, SignalConfig(pods_width=3))
    assert behaves.pop(constructor.all_zero)
    assert not any(behaves.values()), "the words tell the behaviours apart"


@EVERY
def test_every_declaration_holds(constructor):
    findings = check_declared(constructor, SignalConfig(pods_width=3, care_negatives=2, sdpo_negatives=2))
    assert [finding for finding in findings if finding.holds is False] == []
    assert sum(finding.holds is True for finding in findings) >= 7
    (depends,) = (finding.found for finding in findings if finding.what == "a group depends on the others")
    assert depends == ("yes" if constructor.name in BATCHWISE else "no")


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        ({"width": "G"}, "rows that reach the actor, at most"),
        ({"anchors": "always"}, "where an anchor stands"),
        ({"all_zero": "target"}, "a group without a hit"),
        ({"redraws": True}, "asks for new groups"),
        ({"structural": False}, "orders rollouts by score"),
        ({"level_wise": True}, "numbers of their own for levels"),
    ],
)
def test_a_false_declaration_is_found(lie, what):
    findings = check_declared(replace(get_constructor("recast"), name="liar", **lie))
    assert what in [finding.what for finding in findings if finding.holds is False]


def test_a_function_that_fails_or_changes_its_mind_is_found():
    def fails(state):
        return state.nothing

    def changes(state):
        return replace(state, advantages_PG=torch.rand_like(state.rewards_PG))

    base = get_constructor("grpo")
    with pytest.raises(SignalError, match=r"liar: fails on ordinary groups of 4 \(AttributeError.*mend its function"):
        check_declared(replace(base, name="liar", apply=fails))
    findings = check_declared(replace(base, name="liar", apply=changes))
    assert "the same batch again" in [finding.what for finding in findings if finding.holds is False]


def test_the_groups_that_a_constructor_acts_on_are_counted_by_their_hits():
    """Of nine rollouts; two_grpo reads two of them only."""
    assert acting_shares(get_constructor("grpo")) == [0, *[1] * 8, 0]
    assert acting_shares(get_constructor("recast")) == [*[1] * 9, 0]
    assert acting_shares(get_constructor("psr")) == [0, *[1] * 9]
    assert acting_shares(get_constructor("sft")) == [1] * 10
    two = acting_shares(get_constructor("two_grpo"))
    assert (two[0], two[9]) == (0, 0)
    assert 0 < sum(two) / 10 < 0.9


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_advantages_and_weights_keep_the_rewards_precision(constructor, dtype):
    batch = {name: v.to(dtype) if v.is_floating_point() else v for name, v in iid_groups(4, 0.2).items()}
    signal = construct(constructor, **batch, config=SignalConfig(pods_width=3))
    assert signal.advantages_PG.dtype == signal.plan.weights_N.dtype == dtype
    assert signal.advantages_PG.isfinite().all()


@EVERY
def test_redraws_are_asked_for_only_where_declared(constructor):
    signal = construct(constructor, **iid_groups(4, 0.2), config=SignalConfig(pods_width=3))
    assert signal.redraw_P.any() == constructor.redraws


def test_papers_md_has_one_row_a_constructor_with_its_source_and_names_real_parameters():
    lines = (Path(__file__).parents[3] / "PAPERS.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    rows = [row for row in table if row[0] not in ("name", "---")]
    assert {row[0]: row[1] for row in rows} == {c.name: c.source for c in list_constructors()}
    assert len(rows) == len(list_constructors())
    defaults = {field.name: field.default for field in fields(SignalConfig)}
    for row in rows:
        for word in row[4].replace(";", ",").split(", "):
            name, _, value = word.partition(" ")
            if "_" in name and name in defaults:
                assert float(value.split()[0]) == defaults[name], f"{row[0]}: {word}"


def test_papers_md_names_functions_that_exist():
    lines = (Path(__file__).parents[3] / "PAPERS.md").read_text().splitlines()
    for line in lines:
        if line.startswith("|") and not line.startswith(("| name", "|---")):
            for word in line.split("|")[4].replace(",", " ").split():
                if "." in word:
                    module, function = word.split(".")
                    assert hasattr(importlib.import_module(f"recast_sim.signal.steps.{module}"), function), word
