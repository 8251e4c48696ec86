"""Generated batches and small helpers that the tests of the signal module share."""

import random

import torch
from hypothesis import assume, settings
from hypothesis import strategies as st

from recast_sim.signal import (
    SignalConfig,
    append_row,
    get_constructor,
    group_state,
)
from recast_sim.signal.declared import level_inputs

facts = settings(max_examples=25, deadline=None, database=None, derandomize=True)
few_facts = settings(facts, max_examples=5)  # of each of many constructors

SHIPPED = (  # every row of the table, and ours
    "grpo",
    "dr_grpo",
    "rloo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "gpg",
    "dapo",
    "max_rl",
    "reward_share",
    "bnpo",
    "pass_at_k",
    "w_reinforce",
    "psr",
    "nsr",
    "ngrpo",
    "rank_reward",
    "pods",
    "add_gt",
    "two_grpo",
    "care",
    "luffy",
    "visurf",
    "wpauc",
    "spo",
    "repair_only",
    "boundary_only",
    "recast",
    "sft",
    "sft_hard_negative",
    "s_dpo",
    "tempered_anchor",
    "mixture_anchor",
    "hits_light_anchor",
    "beam_listwise",
    "composite",
    "hybrid",
    "grpo_anchor",
    "rloo_anchor",
    "near_miss",
    "sapo",
    "sibling",
    "sibling_grpo",
    "recast_masked",
    "recast_diverging",
    "dft",
    "rl_zvp",
    "chord",
    "deepest_level",
    "lens",
    "exp_reward_sft",
    "grpo_sr",
    "ada_grpo",
)
SAME_ROWS = tuple(n for n in SHIPPED if not get_constructor(n).appends)  # the signal has the batch's rows
LEVEL_WISE = tuple(n for n in SHIPPED if get_constructor(n).level_wise)
BATCHWISE = ("reinforce_pp", "reinforce_pp_baseline", "gpg", "bnpo", "spo")  # a group depends on its neighbours
BY_SLOT = ("add_gt", "luffy", "two_grpo")  # the order of a group's rows matters
OWN_ANCHOR_WEIGHT = ("luffy", "tempered_anchor", "mixture_anchor", "composite")
CENTRED = (
    *("grpo", "dr_grpo", "rloo", "dapo", "max_rl", "pods", "add_gt", "repair_only", "reinforce_pp_baseline", "gpg"),
    *("pass_at_k", "rank_reward", "two_grpo", "luffy", "visurf", "wpauc", "s_dpo", "sapo", "deepest_level", "lens"),
)
ANCHORED = tuple(n for n in SHIPPED if get_constructor(n).off_policy)
WIDE = (
    *("grpo", "dr_grpo", "rloo", "max_rl", "add_gt", "repair_only", "reinforce_pp", "reinforce_pp_baseline", "gpg"),
    *("pass_at_k", "w_reinforce", "psr", "nsr", "ngrpo", "reward_share", "rank_reward", "luffy", "wpauc", "spo"),
    *("sapo", "sibling", "sibling_grpo", "rl_zvp", "deepest_level", "lens", "exp_reward_sft"),
)
# small groups: pods keeps two rows, pass_at_k asks for one
LOGPROB = SignalConfig(tie_rule="highest_logprob", pods_width=2, pass_k=1)
WIDTH_TWO = SignalConfig(pods_width=2, pass_k=1)


@st.composite
def batches(draw, *, rewards="binary", distinct_scores=False, padding="any", anchors="any", G=None, min_G=3):
    """Keyword arguments of `construct`, float64: 1 to 3 groups of the same size.

    `rewards` is binary, graded (ties likely) or distinct; `padding` is none, one (at most, a group) or any.
    """
    P, G = draw(st.integers(1, 3)), G or draw(st.integers(min_G, 6))

    def rows(*values):
        """P rows of G values, one draw a row: the digits of a number."""
        numbers = [draw(st.integers(0, len(values) ** G - 1)) for _ in range(P)]
        return [[values[number // len(values) ** g % len(values)] for g in range(G)] for number in numbers]

    def distinct(scale):
        orders = [random.Random(draw(st.integers(0, 999))).sample(range(G), G) for _ in range(P)]
        return [[scale * n for n in order] for order in orders]

    valid = [[True] * G for _ in range(P)]
    if padding == "one":
        for row in valid:
            row[draw(st.integers(0, G - 1))] = draw(st.booleans())
    elif padding == "any":
        valid = rows(True, True, True, False)
        assume(all(any(row) for row in valid))
    values = {"binary": (0.0, 1.0), "graded": (0.0, 0.25, 1.0, 2.0)}
    logprob = tensor(distinct(-1.0))
    reward = tensor(distinct(0.5) if rewards == "distinct" else rows(*values[rewards]))
    score = tensor(distinct(1 / 8) if distinct_scores else rows(0.0, 0.01, 0.1, 1.0))
    return {
        "rewards_PG": reward,
        "structural_PG": score,
        **level_inputs(reward, score),
        "valid_PG": torch.tensor(valid),
        "has_anchor_P": torch.tensor([anchors == "all" or draw(st.booleans()) for _ in range(P)]),
        "logprob_PG": logprob,
        "anchor_logprob_P": -0.3 - torch.arange(P, dtype=torch.float64),
        "baseline_P": 0.2 * torch.arange(P, dtype=torch.float64),
        "reference_logprob_PG": 0.6 * logprob - 0.1,
        "anchor_reference_logprob_P": -0.5 - torch.arange(P, dtype=torch.float64).square(),
    }


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_group(*rewards, **changes):
    scores = tensor([[1.0 if r > 0 else 0.01 * g for g, r in enumerate(rewards)]])
    logprobs = tensor([[-0.5 * (g + 1) for g in range(len(rewards))]])
    return {
        "rewards_PG": tensor([rewards]),
        "structural_PG": scores,
        **level_inputs(tensor([rewards]), scores),
        "has_anchor_P": torch.tensor([True]),
        "logprob_PG": logprobs,
        "anchor_logprob_P": tensor([-2.0]),
        "baseline_P": tensor([0.25]),
        "reference_logprob_PG": logprobs,
        "anchor_reference_logprob_P": tensor([-2.0]),
    } | changes


def final_state(name, batch, config=None):
    """The state that a constructor leaves, which shows the rewards and the scores it used."""
    state = group_state(**batch, config=config)
    return get_constructor(name).apply(append_row(state) if get_constructor(name).appends else state)


def permuted(batch, order):
    return {name: value[:, order] if "_PG" in name else value for name, value in batch.items()}


def mask(index_P, width):
    return torch.nn.functional.one_hot(index_P + 1, width + 1)[:, 1:].bool()
