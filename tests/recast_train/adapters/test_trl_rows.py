"""Kept rows over processes and micro-batches: none lost, none twice, groups whole, equal counts; hand-made TRL lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recast_sim.signal import construct
from recast_train.adapters.trl.contract import Generated
from recast_train.adapters.trl.process_rows import Split, keep, lay_out

pytestmark = pytest.mark.adapters


@given(st.data())
def test_every_kept_row_is_in_one_micro_batch_of_its_process(data: st.DataObject) -> None:
    ranks, steps, room = (data.draw(st.integers(1, most)) for most in (3, 4, 6))
    local, G = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    prompts = ranks * local
    rows_N = torch.tensor(data.draw(st.lists(st.booleans(), min_size=prompts * G, max_size=prompts * G))).nonzero()[:, 0]
    layouts = [lay_out(rows_N, G, prompts, Split(rank, ranks, steps, room)) for rank in range(ranks)]
    lengths = {len(layout.row_R) for layout in layouts}
    assert len(lengths) == 1
    (length,) = lengths
    assert length > 0
    assert length % steps == 0
    kept = [layout.row_R[layout.row_R >= 0] for layout in layouts]
    assert torch.cat(kept).sort()[0].tolist() == list(range(len(rows_N)))
    for rank, own in enumerate(kept):
        assert ((rows_N[own] // G) // local == rank).all()
    counts = torch.bincount(rows_N // G, minlength=prompts)
    batches = [batch for layout in layouts for batch in layout.row_R.view(steps, -1)]
    groups = [sorted(set((rows_N[batch[batch >= 0]] // G).tolist())) for batch in batches]
    if counts.max() <= room:
        flat = [group for batch in groups for group in batch]
        assert len(flat) == len(set(flat))  # no group in two micro-batches
    if len(rows_N):
        assert layouts[0].row_scale == ranks * length / len(rows_N)
        assert layouts[0].batch_scale == pytest.approx(len(batches) / sum(map(bool, groups)))
    # no more blocks than the fullest process needs
    fullest = max(int((counts > 0)[rank * local :][:local].sum()) for rank in range(ranks))
    if counts.max() <= room:
        assert length == max(1, int(counts.max())) * steps * max(1, -(-fullest // steps))


def test_rows_of_trl_are_the_pair_its_anchor_and_masked_fillers() -> None:
    """Two groups of three on one process, two micro-batches: the first group is repaired, the second has no signal."""
    structural = [[0.1, 0.0, 0.1], [0.0, 0.0, 0.0]]
    signal = construct("recast", [[0, 0, 0], [0, 0, 0]], structural, has_anchor_P=[True, False])
    ids = [[row] for row in range(6)]
    generated = Generated([[7, 8]] * 3 + [[9]] * 3, ids, None, ids, [[-float(row)] for row in range(6)], {}, None, [])
    kept, numbers_RL, layout = keep(generated, [[5, 6], None], signal, Split(rank=0, ranks=1, steps=2, room=3))
    assert layout.row_R.tolist() == [0, 1, -1, -1]
    assert kept.prompt_ids == [[7, 8]] * 4
    assert kept.completion_ids == [[0], [5, 6], [7], [7]]
    assert kept.tool_mask == [[1], [1, 1], [0], [0]]
    assert kept.logprobs == [[-0.0], [None, None], [None], [None]]
    assert kept.completions is generated.completions  # what was sampled is what is logged
    assert numbers_RL.tolist() == [[-1], [1], [0], [0]]


def test_weights_of_a_plan_multiply_its_advantages_and_masks_follow_their_rows() -> None:
    signal = construct("luffy", [[0.0, 0.0]], has_anchor_P=[True], anchor_logprob_P=[-1.0])
    generated = Generated([[1]] * 2, [[2, 3], [4]], [[0, 1], [1]], [], None, {}, None, [])
    kept, numbers_RL, _ = keep(generated, [[5]], signal, Split(0, 1, 1, 4))
    p = torch.tensor(-1.0).exp()
    torch.testing.assert_close(numbers_RL[:, 0], torch.stack([torch.tensor(-0.5), 0.5 * 0.1 * p / (p + 0.1) ** 2]))
    assert kept.tool_mask == [[0, 1], [1]]
    assert kept.completion_ids == [[2, 3], [5]]
    assert kept.logprobs is None
