"""Structural scores and exact hits against plain Python sets, for 1 to 5 levels."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_sim.signal import (
    SignalError,
    default_level_scores,
    exact_hit,
    level_matches,
    prefix_length,
    structural_score,
)

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


LAYOUTS = {
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda t: torch.stack([t, t + 1], -1)[..., 0],
    "reversed": lambda t: t.flip(-1).contiguous().flip(-1),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_layout_and_dtype_of_codes_scores_as_a_contiguous_copy(levels, layout, dtype):
    generator = torch.Generator().manual_seed(levels)
    sids = torch.randint(3, (4, 5, 2, levels), generator=generator).to(dtype)
    targets = torch.randint(3, (4, 3, levels), generator=generator).to(dtype)
    laid_out, truth = layout(sids), layout(targets)
    assert torch.equal(structural_score(laid_out, truth), structural_score(sids.long(), targets.long()))
    assert torch.equal(exact_hit(laid_out[:, :, 0], truth), exact_hit(sids[:, :, 0].long(), targets.long()))
    assert torch.equal(level_matches(laid_out[:, :, 0], truth), level_matches(sids[:, :, 0].long(), targets.long()))


def test_a_repeated_sid_counts_once_or_each_time():
    hit, near, far = [1, 2, 3], [1, 2, 9], [7, 7, 7]
    response, target = torch.tensor([[[hit, near, near, far]]]), torch.tensor([[[1, 2, 3]]])
    assert structural_score(response, target).item() == pytest.approx((1 + 0.1 + 0) / 3)
    assert structural_score(response, target, repeats="each").item() == pytest.approx((1 + 0.1 + 0.1 + 0) / 4)
    real = torch.tensor([[[True, True, True, False]]])
    assert structural_score(response, target, sid_mask_PGS=real, repeats="each").item() == pytest.approx(1.2 / 3)
    with pytest.raises(SignalError, match="repeats: 'twice' must be once or each"):
        structural_score(response, target, repeats="twice")


def test_level_matches_by_prefix_and_level_by_level():
    sids = torch.tensor([[[1, 2, 3], [1, 5, 3], [4, 2, 3]]])
    targets = torch.tensor([[[1, 2, 3], [-1, -1, -1]]])
    assert level_matches(sids, targets).tolist() == [[[1, 1, 1], [1, 0, 0], [0, 0, 0]]]
    assert level_matches(sids, targets, prefix=False).tolist() == [[[1, 1, 1], [1, 0, 1], [0, 1, 1]]]
    assert level_matches(torch.full((1, 1, 3), -1), targets).tolist() == [[[0, 0, 0]]]


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
