"""Collisions: every item its own code, the nearest free one by enumeration, and the order of the catalog does not matter."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_train.semantic_id import Quantised, SemanticIdError, move_to_free, number_inside, tokenize_items


def random_quantised(seed: int, items: int, sizes: tuple[int, ...], skew: float = 2.0) -> Quantised:
    """Items quantised greedily with random codebooks; `skew` crowds them into few codes."""
    rng = np.random.default_rng(seed)
    books = tuple(rng.standard_normal((size, 3)) for size in sizes)
    vectors = left = rng.standard_normal((items, 3)) / skew
    codes = []
    for book in books:
        codes.append(np.linalg.norm(left[:, None] - book, axis=2).argmin(axis=1))
        left = left - book[codes[-1]]
    return Quantised(vectors, books, np.stack(codes, axis=1), lambda rebuilt: rebuilt)


def permuted(quantised: Quantised, order: np.ndarray) -> Quantised:
    return Quantised(quantised.vectors_ID[order], quantised.codebooks, quantised.codes_IL[order], quantised.decode)


def moved_by_enumeration(quantised: Quantised) -> np.ndarray:
    sizes = quantised.sizes
    sids = list(product(*(range(size) for size in sizes)))
    vector = {sid: sum(quantised.codebooks[level][code] for level, code in enumerate(sid)) for sid in sids}
    own = [tuple(row) for row in quantised.codes_IL.tolist()]
    far = [float(np.linalg.norm(quantised.vectors_ID[item] - vector[own[item]])) for item in range(len(own))]
    order = sorted(range(len(own)), key=far.__getitem__)
    found: dict[int, tuple[int, ...]] = {}
    for item in order:
        if own[item] not in found.values():
            found[item] = own[item]
    for item in order:
        if item not in found:
            free = [sid for sid in sids if sid not in found.values()]
            near = [sid for sid in free if sid[:-1] == own[item][:-1]] or free
            found[item] = min(near, key=lambda sid: float(np.linalg.norm(quantised.vectors_ID[item] - vector[sid])))
    return np.array([found[item] for item in range(len(own))])


cases = st.tuples(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), st.floats(0.05, 1.0))


@given(cases)
def test_moved_items_are_where_enumeration_puts_them(case: tuple[int, tuple[int, ...], float]) -> None:
    seed, sizes, load = case
    quantised = random_quantised(seed, max(1, int(load * prod(sizes))), sizes)
    codes = move_to_free(quantised)
    assert len(np.unique(codes, axis=0)) == len(codes)
    assert ((codes >= 0) & (codes < sizes)).all()
    assert np.array_equal(codes, moved_by_enumeration(quantised))


@given(cases)
def test_the_order_of_the_catalog_does_not_matter(case: tuple[int, tuple[int, ...], float]) -> None:
    seed, sizes, load = case
    quantised = random_quantised(seed, max(1, int(load * prod(sizes))), sizes)
    order = np.random.default_rng(seed).permutation(len(quantised.codes_IL))
    for handle in (move_to_free, number_inside):
        assert np.array_equal(handle(permuted(quantised, order)), handle(quantised)[order])


def test_a_beam_narrower_than_the_tree_still_finds_free_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    from recast_train.semantic_id import collisions

    monkeypatch.setattr(collisions, "BEAM", 2)
    codes = move_to_free(random_quantised(0, 125, (5, 5, 5)))
    assert len(np.unique(codes, axis=0)) == 125


def test_the_report_says_what_moving_cost() -> None:
    points = np.random.default_rng(0).standard_normal((60, 3))
    level, nearest = (tokenize_items(points, (8, 8), 0, collisions=handling) for handling in ("level", "nearest"))
    same = ("collisions", "largest_cluster", "reconstruction_error")
    assert {key: nearest.report[key] for key in same} == {key: level.report[key] for key in same}
    assert nearest.sizes == (8, 8)
    assert nearest.report["moved"] == (nearest.codes_IL != level.codes_IL[:, :2]).any(axis=1).sum() > 0
    assert nearest.report["reconstruction_error_moved"] > nearest.report["reconstruction_error"][-1]
    assert "moved" not in level.report


def test_more_items_than_ids_is_an_error_that_names_the_mend() -> None:
    said = r"sizes: \(4, 4\) give 16 IDs to 17 items; raise sizes or use collisions = 'level'"
    points = np.random.default_rng(0).standard_normal((17, 3))
    with pytest.raises(SemanticIdError, match=said):
        tokenize_items(points, (4, 4), 0, collisions="nearest")
    with pytest.raises(SemanticIdError, match=said):
        move_to_free(random_quantised(0, 17, (4, 4)))
