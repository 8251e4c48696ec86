import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recast_sim.catalog import Catalog, CatalogError, synthetic_codes, zipf_popularity

CODES = hnp.arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.integers(0, 4))


@given(CODES, st.sampled_from([5, 10**6]))  # few possible codes are ranked in a table of all of them, many by sorting
def test_trie_holds_exactly_the_prefixes_of_the_items(codes: np.ndarray, size: int) -> None:
    catalog = Catalog.from_codes(codes, (size,) * codes.shape[1])
    for level in range(1, catalog.levels + 1):
        expected = sorted({tuple(row[:level]) for row in codes.tolist()})
        assert len(catalog.node_code[level]) == len(expected)
        assert catalog.node_code[level].tolist() == [prefix[-1] for prefix in expected]
        above = sorted({prefix[:-1] for prefix in expected})
        assert catalog.node_parent[level].tolist() == [above.index(prefix[:-1]) for prefix in expected]
        firsts = [sum(prefix[:-1] < parent for prefix in expected) for parent in above]
        assert catalog.child_offset[level - 1].tolist() == [*firsts, len(expected)]
    assert (catalog.leaf_codes[catalog.leaf_of_item_I] == codes).all()
    assert (catalog.find_leaf(codes) == catalog.leaf_of_item_I).all()


@given(CODES)
def test_children_are_the_legal_next_codes(codes: np.ndarray) -> None:
    catalog = Catalog.from_codes(codes)
    for level in range(catalog.levels):
        table = catalog.children(level)
        for node, row in enumerate(table):
            kept = row[row >= 0]
            assert (catalog.node_parent[level + 1][kept] == node).all()
        assert sorted(table[table >= 0].tolist()) == list(range(len(catalog.node_code[level + 1])))


@given(CODES)
def test_collisions_count_items_that_share_an_sid(codes: np.ndarray) -> None:
    rows = [tuple(row) for row in codes.tolist()]
    assert Catalog.from_codes(codes).collisions == sum(rows.count(row) > 1 for row in rows)


def test_unknown_sids_are_not_found() -> None:
    catalog = Catalog.from_codes(np.array([[0, 1], [2, 0]]), sizes=(3, 2))
    assert catalog.find_leaf(np.array([[0, 1], [0, 0], [1, 1], [9, 9], [-1, 0], [2, 0]])).tolist() == [0, -1, -1, -1, -1, 1]


def test_synthetic_codes_are_distinct_and_popularity_is_zipf() -> None:
    rng = np.random.default_rng(0)
    codes = synthetic_codes(50, (4, 4, 4), rng)
    assert len({tuple(row) for row in codes.tolist()}) == 50
    popularity = np.sort(zipf_popularity(100, 1.0, rng))[::-1]
    assert popularity.sum() == pytest.approx(1)
    assert popularity[0] / popularity[9] == pytest.approx(10)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: Catalog.from_codes(np.zeros((0, 3), dtype=int)), "codes_IL"),
        (lambda: Catalog.from_codes(np.zeros((2, 3))), "codes_IL: dtype"),
        (lambda: Catalog.from_codes(np.array([[0, 5]]), sizes=(2, 2)), "item 0 has code 5 at level 1"),
        (lambda: Catalog.from_codes(np.array([[0, -1]])), "item 0 has code -1 at level 1"),
        (lambda: Catalog.from_codes(np.array([[0, 1]]), sizes=(2,)), "sizes"),
        (lambda: synthetic_codes(9, (2, 2), np.random.default_rng(0)), "items: 9"),
        (lambda: zipf_popularity(9, -1.0, np.random.default_rng(0)), "alpha: -1.0"),
        (lambda: Catalog.from_codes(np.array([[0, 1]])).find_leaf(np.array([[0]])), "sids_NL"),
    ],
)
def test_bad_input_names_the_argument(call, names) -> None:
    with pytest.raises(CatalogError, match=names):
        call()
