"""Structural scores and exact hits against plain Python sets, for 1 to 5 levels."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_sim.signal import SignalError, default_level_scores, exact_hit, prefix_length, structural, structural_score
from recast_sim.signal.sid_keys import Packing

pytestmark = pytest.mark.property

facts = settings(max_examples=150, deadline=None, database=None, derandomize=True)


class Case(NamedTuple):
    """SIDs as nested lists of tuples of codes: [prompt][rollout][place] and [prompt][target], with their masks."""

    sids: list
    targets: list
    sid_mask: list
    target_mask: list
    scores: tuple | None


@st.composite
def cases(draw):
    """Few codes a level, so that prefixes, repeats and exact hits are common."""
    P, G, S, T, L = (draw(st.integers(1, high)) for high in (2, 3, 4, 3, 5))

    def choose(*values):
        return values[draw(st.integers(0, len(values) - 1))]

    def sid():
        number = draw(st.integers(0, 2**L - 1))
        return tuple(number >> level & 1 for level in range(L))

    scores = tuple(sorted(draw(st.lists(st.floats(0, 1, width=16), min_size=L + 1, max_size=L + 1))))
    return Case(
        sids=[[[sid() for _ in range(S)] for _ in range(G)] for _ in range(P)],
        targets=[[sid() for _ in range(T)] for _ in range(P)],
        sid_mask=[[[choose(True, True, False) for _ in range(S)] for _ in range(G)] for _ in range(P)],
        target_mask=[[choose(True, True, False) for _ in range(T)] for _ in range(P)],
        scores=choose(None, scores),
    )


def kept(items, mask):
    return {item for item, used in zip(items, mask, strict=True) if used}


def shared(a, b):
    """Levels of the common prefix."""
    for level, (x, y) in enumerate(zip(a, b, strict=True)):
        if x != y:
            return level
    return len(a)


def oracle(case):
    L = len(case.targets[0][0])
    phi = case.scores or [0.0] + [10.0 ** -(L - length) for length in range(1, L + 1)]
    table = []
    for sids, masks, targets, target_mask in zip(*case[:1], case.sid_mask, case.targets, case.target_mask, strict=True):
        T = kept(targets, target_mask)
        row = []
        for response, mask in zip(sids, masks, strict=True):
            P_i = kept(response, mask)
            best = [max(phi[shared(p, t)] for t in T) for p in P_i] if T else []
            row.append(sum(best) / len(best) if best else 0.0)
        table.append(row)
    return torch.tensor(table)


def scored(case, **changes):
    masks = {"sid_mask_PGS": torch.tensor(case.sid_mask), "target_mask_PT": torch.tensor(case.target_mask)}
    tensors = torch.tensor(case.sids), torch.tensor(case.targets)
    return structural_score(*tensors, **(masks | {"level_scores": case.scores} | changes))


@facts
@given(case=cases())
def test_structural_score_against_sets(case):
    torch.testing.assert_close(scored(case), oracle(case))


@facts
@given(case=cases())
def test_without_masks_everything_counts(case):
    full = case._replace(
        sid_mask=torch.ones(torch.tensor(case.sid_mask).shape).bool().tolist(),
        target_mask=torch.ones(torch.tensor(case.target_mask).shape).bool().tolist(),
    )
    torch.testing.assert_close(scored(case, sid_mask_PGS=None, target_mask_PT=None), oracle(full))


@facts
@given(case=cases())
def test_repeating_a_sid_changes_nothing(case):
    doubled = case._replace(
        sids=[[response + response for response in group] for group in case.sids],
        sid_mask=[[mask + mask for mask in group] for group in case.sid_mask],
    )
    torch.testing.assert_close(scored(doubled), scored(case))


@facts
@given(case=cases())
def test_scores_lie_between_zero_and_one_and_an_exact_hit_scores_one(case):
    scores = scored(case, level_scores=None)
    assert ((scores >= 0) & (scores <= 1)).all()
    first = torch.tensor(case.sids)[:, :, 0]
    alone = structural_score(first, torch.tensor(case.targets), target_mask_PT=torch.tensor(case.target_mask))
    hits = exact_hit(first, torch.tensor(case.targets), torch.tensor(case.target_mask))
    assert torch.equal(alone == 1, hits == 1)


@facts
@given(case=cases())
def test_exact_hit_against_sets(case):
    first = [[response[0] for response in group] for group in case.sids]
    columns = zip(first, case.targets, case.target_mask, strict=True)
    expected = [[float(sid in kept(targets, mask)) for sid in group] for group, targets, mask in columns]
    hits = exact_hit(torch.tensor(first), torch.tensor(case.targets), torch.tensor(case.target_mask))
    assert hits.tolist() == expected


@facts
@given(case=cases())
def test_prefix_length_against_a_loop(case):
    lengths = prefix_length(torch.tensor(case.sids), torch.tensor(case.targets))
    expected = [
        [[[shared(sid, target) for target in targets] for sid in response] for response in group]
        for group, targets in zip(case.sids, case.targets, strict=True)
    ]
    assert lengths.tolist() == expected


def level_by_level(sids, targets, sid_mask=None, target_mask=None):
    """The plain tensor version: prefix lengths against every target, repeats by comparing all pairs."""
    sid_mask = torch.ones(sids.shape[:3], dtype=torch.bool) if sid_mask is None else sid_mask
    target_mask = torch.ones(targets.shape[:2], dtype=torch.bool) if target_mask is None else target_mask
    length = prefix_length(sids, targets).masked_fill(~target_mask[:, None, None], 0)
    phi = torch.tensor(default_level_scores(sids.shape[3]))[length.amax(3)]
    same = (sids[:, :, :, None] == sids[:, :, None]).all(4) & sid_mask[:, :, None]
    counted = sid_mask & ~same.tril(-1).any(3)
    return phi.masked_fill(~counted, 0.0).sum(2) / counted.sum(2).clamp(min=1)


@facts
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(*(st.integers(1, high) for high in (3, 4, 6, 4, 6))),
    codes=st.sampled_from([(0, 2), (0, 8192), (-3, 3), (5, 2**20), (-(2**62), 2**62), (2**62, 2**62 + 3)]),
    masked=st.booleans(),
    part=st.sampled_from([1, 2**16]),
)
def test_packed_scores_are_exactly_those_of_the_comparison_level_by_level(seed, shape, codes, masked, part):
    P, G, S, T, L = shape
    generator = torch.Generator().manual_seed(seed)
    sids, targets = (torch.randint(codes[0], codes[1], size, generator=generator) for size in ((P, G, S, L), (P, T, L)))
    sids[:, :, 0, : L // 2] = targets[:, :1, : L // 2]
    sids[:, 0, S - 1] = targets[:, T - 1]
    sids[:, :1] = sids[:, :1, S - 1 :]  # a response that repeats one SID
    sid_mask = torch.rand(P, G, S, generator=generator) < 0.7 if masked else None
    target_mask = torch.rand(P, T, generator=generator) < 0.6 if masked else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structural, "_PART", part)
        ours = structural_score(sids, targets, sid_mask_PGS=sid_mask, target_mask_PT=target_mask)
        assert torch.equal(ours, level_by_level(sids, targets, sid_mask, target_mask))
        equal = (sids[:, :, 0][:, :, None] == targets[:, None]).all(3)
        expected = (equal if target_mask is None else equal & target_mask[:, None]).any(2).float()
        assert torch.equal(exact_hit(sids[:, :, 0], targets, target_mask), expected)


def test_codes_are_packed_where_62_bits_hold_them():
    of_19_bits, of_20_bits = torch.tensor([[0, 2**19 - 1, 1]]), torch.tensor([[0, 2**19, 1]])
    assert Packing.of(of_19_bits, of_19_bits) == Packing(lowest=0, bits=20, levels=3)
    assert Packing.of(of_19_bits, of_20_bits) is None
    assert Packing.of(torch.tensor([[-2, 0, 0]]), of_19_bits - 2) == Packing(lowest=-2, bits=20, levels=3)


def test_the_papers_level_scores():
    """arXiv 2604.22169: 1 for the item, .1 for two shared levels, .01 for the first alone, else 0."""
    sids = torch.tensor([[[1, 2, 3], [1, 2, 9], [1, 9, 3], [9, 2, 3]]])
    torch.testing.assert_close(structural_score(sids, torch.tensor([[1, 2, 3]])), torch.tensor([[1, 0.1, 0.01, 0]]))
    assert exact_hit(sids, torch.tensor([[1, 2, 3]])).tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("levels", "scores"), [(1, (0, 1)), (2, (0, 0.1, 1)), (3, (0, 0.01, 0.1, 1)), (5, (0, 1e-4, 1e-3, 0.01, 0.1, 1))]
)
def test_default_level_scores(levels, scores):
    assert default_level_scores(levels) == pytest.approx(scores, rel=1e-12)


def test_a_response_is_the_mean_over_its_distinct_sids_of_the_best_target():
    """SIDs 11 (twice), 12 and 99 against the targets 11 and 13: (1 + .1 + 0) / 3."""
    sids = torch.tensor([[[[1, 1], [1, 1], [1, 2], [9, 9]]]])
    score = structural_score(sids, torch.tensor([[[1, 1], [1, 3]]]))
    torch.testing.assert_close(score, torch.tensor([[1.1 / 3]]))


EMPTY = {"sids_PGSL": torch.ones(2, 3, 2, 3).long(), "targets_PTL": torch.ones(2, 2, 3).long()}


@pytest.mark.parametrize(
    "masks",
    [
        {"sid_mask_PGS": torch.tensor([False, True])[:, None, None].expand(2, 3, 2)},
        {"target_mask_PT": torch.tensor([False, True])[:, None].expand(2, 2)},
    ],
)
def test_an_empty_set_scores_zero(masks):
    assert structural_score(**EMPTY, **masks).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_empty_targets_are_no_hit():
    mask = torch.tensor([[False], [True]])
    assert exact_hit(torch.ones(2, 3, 3), torch.ones(2, 1, 3), mask).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_an_axis_of_no_sids_scores_zero():
    score = structural_score(torch.ones(2, 3, 0, 3).long(), torch.ones(2, 1, 3).long())
    assert score.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_an_axis_of_no_targets_scores_zero():
    score = structural_score(torch.ones(2, 3, 1, 3).long(), torch.ones(2, 0, 3).long())
    assert score.tolist() == [[0, 0, 0], [0, 0, 0]]


SIDS, TARGETS = torch.ones(2, 3, 1, 3).long(), torch.ones(2, 1, 3).long()


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: structural_score(SIDS[0, 0], TARGETS), "sids_PGSL"),
        (lambda: structural_score(SIDS, TARGETS[:1]), "targets_PTL"),
        (lambda: structural_score(SIDS, TARGETS[:, :, :2]), "targets_PTL"),
        (lambda: exact_hit(SIDS[:, :, 0], TARGETS[:, :, :2]), "targets_PTL"),
        (lambda: structural_score(SIDS, TARGETS, sid_mask_PGS=torch.ones(2, 3).bool()), "sid_mask_PGS"),
        (lambda: structural_score(SIDS, TARGETS, sid_mask_PGS=torch.ones(2, 3, 1)), "sid_mask_PGS"),
        (lambda: structural_score(SIDS, TARGETS, target_mask_PT=torch.ones(2, 2).bool()), "target_mask_PT"),
        (lambda: exact_hit(SIDS[:, :, 0], TARGETS, torch.ones(2, 1)), "target_mask_PT"),
        (lambda: structural_score(SIDS, TARGETS, level_scores=(0, 0.1, 1)), "level_scores"),
        (lambda: structural_score(SIDS, TARGETS, level_scores=(0, 0.5, 0.1, 1)), "level_scores"),
        (lambda: structural_score(SIDS, TARGETS, level_scores=(-0.1, 0, 0.1, 1)), "level_scores"),
        (lambda: structural_score(SIDS, TARGETS, level_scores=(0, 0.01, 0.1, 2)), "level_scores"),
        pytest.param(
            lambda: structural_score(SIDS, TARGETS, level_scores=(0, float("nan"), 0.1, 1)),
            "level_scores",
        ),
    ],
)
def test_bad_input_names_the_argument(call, names):
    with pytest.raises(SignalError, match=f"^{names}: "):
        call()
