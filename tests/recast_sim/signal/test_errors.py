"""Bad input raises a SignalError that names the argument and, where there is one, the first bad prompt."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_sim.signal import (
    SignalConfig,
    SignalError,
    centred,
    choose_anchor,
    construct,
    get_constructor,
    group_state,
    keep_nonzero,
    list_constructors,
    register,
    softmax_preference,
    tempered,
    tracked_baseline,
    unregister,
    windowed,
)


def batch(**changes):
    """Four good groups of three without a hit, ready for every constructor."""
    good = {
        "rewards_PG": torch.zeros(4, 3),
        "structural_PG": torch.full((4, 3), 0.1),
        "valid_PG": torch.ones(4, 3, dtype=torch.bool),
        "has_anchor_P": torch.ones(4, dtype=torch.bool),
        "logprob_PG": torch.full((4, 3), -1.0),
        "anchor_logprob_P": torch.full((4,), -2.0),
        "baseline_P": torch.full((4,), 0.1),
        "reference_logprob_PG": torch.full((4, 3), -1.5),
        "anchor_reference_logprob_P": torch.full((4,), -2.5),
        "sids_PGL": torch.full((4, 3, 2), 7),
        "targets_PTL": torch.ones(4, 1, 2, dtype=torch.int64),
        "anchor_logprob_PL": torch.full((4, 2), -1.0),
        "entropy_PGL": torch.ones(4, 3, 2),
    }
    return good | changes


def filled(value, *bad, like=0.0):
    """(4, 3) of `like` with `value` at every (prompt, rollout) of `bad`."""
    table = torch.full((4, 3), like)
    for p, g in bad:
        table[p, g] = value
    return table


def masked(*bad):
    return filled(0.0, *bad, like=1.0).bool()


BOTH = ((1, 2), (3, 0))  # two bad places; the first one must be named
EMPTY_TWO = [(p, g) for p in (2, 3) for g in range(3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards_PG": filled(math.nan, *BOTH)}, "rewards_PG: prompt 1, rollout 2 is nan"),
        ({"rewards_PG": filled(math.inf, *BOTH)}, "rewards_PG: prompt 1, rollout 2 is inf"),
        ({"rewards_PG": filled(-math.inf, (2, 0))}, "rewards_PG: prompt 2, rollout 0 is -inf"),
        ({"structural_PG": filled(1.2, *BOTH)}, "structural_PG: prompt 1, rollout 2 is 1.2"),
        ({"structural_PG": filled(-0.1, *BOTH)}, "structural_PG: prompt 1, rollout 2 is -0.1"),
        ({"structural_PG": filled(math.nan, *BOTH)}, "structural_PG: prompt 1, rollout 2 is nan"),
        ({"logprob_PG": filled(math.nan, *BOTH)}, "logprob_PG: prompt 1, rollout 2 is nan"),
        ({"logprob_PG": filled(-math.inf, (0, 1))}, "logprob_PG: prompt 0, rollout 1 is -inf"),
        ({"valid_PG": masked(*EMPTY_TWO)}, "valid_PG: prompt 2 "),
        ({"rewards_PG": torch.zeros(3)}, r"rewards_PG: shape \(3,\)"),
        ({"rewards_PG": torch.zeros(2, 2, 3)}, r"rewards_PG: shape \(2, 2, 3\)"),
        ({"rewards_PG": torch.zeros(0, 3)}, r"rewards_PG: shape \(0, 3\)"),
        ({"rewards_PG": torch.zeros(4, 0)}, r"rewards_PG: shape \(4, 0\)"),
        ({"structural_PG": torch.zeros(4, 2)}, r"structural_PG: shape \(4, 2\) .* \(4, 3\)"),
        ({"structural_PG": torch.zeros(3)}, r"structural_PG: shape \(3,\) .* \(4, 3\)"),
        ({"valid_PG": torch.ones(4, dtype=torch.bool)}, r"valid_PG: shape \(4,\) .* \(4, 3\)"),
        ({"has_anchor_P": torch.ones(3, dtype=torch.bool)}, r"has_anchor_P: shape \(3,\) .* \(4,\)"),
        ({"logprob_PG": torch.zeros(3, 4)}, r"logprob_PG: shape \(3, 4\) .* \(4, 3\)"),
        ({"reference_logprob_PG": torch.zeros(3, 4)}, r"reference_logprob_PG: shape \(3, 4\) .* \(4, 3\)"),
        ({"reference_logprob_PG": filled(math.nan, *BOTH)}, "reference_logprob_PG: prompt 1, rollout 2 is nan"),
        ({"anchor_logprob_P": torch.zeros(3)}, r"anchor_logprob_P: shape \(3,\) .* \(4,\)"),
        ({"anchor_reference_logprob_P": torch.zeros(3)}, r"anchor_reference_logprob_P: shape \(3,\) .* \(4,\)"),
        ({"baseline_P": torch.zeros(3)}, r"baseline_P: shape \(3,\) .* \(4,\)"),
        ({"baseline_P": torch.tensor([0.0, math.nan, math.inf, 0.0])}, "baseline_P: prompt 1 is nan"),
        ({"valid_PG": torch.ones(4, 3)}, "valid_PG: dtype torch.float32 must be bool"),
        ({"valid_PG": torch.ones(4, 3, dtype=torch.int64)}, "valid_PG: dtype torch.int64 must be bool"),
        ({"has_anchor_P": [1, 1, 1, 1]}, "has_anchor_P: dtype torch.int64 must be bool"),
        ({"structural_PG": None}, "structural_PG: missing"),
        ({"has_anchor_P": None}, "has_anchor_P: missing"),
        ({"rewards_PG": [[0, 1], [0]]}, "rewards_PG: "),
        ({"rewards_PG": None}, "rewards_PG: "),
    ],
)
def test_bad_batches(changes, message):
    with pytest.raises(SignalError, match=f"^{message}"):
        construct("recast", **batch(**changes))


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    places=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1),
    argument=st.sampled_from(["rewards_PG", "structural_PG", "logprob_PG"]),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_the_first_bad_place_is_named(places, argument, value):
    with pytest.raises(SignalError) as error:
        construct("recast", **batch(**{argument: filled(value, *places)}))
    p, g = min(places)
    assert str(error.value).startswith(f"{argument}: prompt {p}, rollout {g} is {value}")


@pytest.mark.parametrize("argument", ["rewards_PG", "structural_PG", "logprob_PG"])
def test_a_bad_value_in_a_padded_row_is_no_error(argument):
    signal = construct("recast", **batch(**{argument: filled(math.nan, *BOTH), "valid_PG": masked(*BOTH)}))
    assert signal.advantages_PG.isfinite().all()
    assert signal.learnable_P.all()


def only_one():
    """The good batch's first rollout of its first prompt."""
    return {name: value[:1, :1] if "_PG" in name else value[:1] for name, value in batch().items()}


@pytest.mark.parametrize("name", [c.name for c in list_constructors() if c.rollouts and c.compares])
def test_a_group_of_one_is_too_small_to_compare(name):
    with pytest.raises(SignalError, match=f"^rewards_PG: group size 1 .* {name}"):
        construct(name, **only_one())


@pytest.mark.parametrize("name", [c.name for c in list_constructors() if not (c.rollouts and c.compares)])
def test_a_group_of_one_serves_those_that_do_not_compare(name):
    assert construct(name, **only_one()).advantages_PG.shape == (1, 1)


NEEDS = [(c.name, argument) for c in list_constructors() for argument in c.inputs]


@pytest.mark.parametrize(("name", "argument"), NEEDS)
def test_a_missing_input_is_named_with_the_constructor_that_needs_it(name, argument):
    with pytest.raises(SignalError, match=f"^{argument}: missing; {name} "):
        construct(name, **batch(**{argument: None}), config=SignalConfig(pods_width=2, pass_k=1))


@pytest.mark.parametrize("constructor", list_constructors(), ids=lambda c: c.name)
def test_the_declared_inputs_are_enough(constructor):
    given = {name: value for name, value in batch().items() if name in ("rewards_PG", *constructor.inputs)}
    construct(constructor, **given, config=SignalConfig(pods_width=2, pass_k=1))


@pytest.mark.parametrize("argument", ["logprob_PG", "baseline_P", "reference_logprob_PG", "anchor_logprob_P"])
def test_a_step_used_alone_names_its_missing_input_too(argument):
    step = {"logprob_PG": windowed, "baseline_P": tracked_baseline, "anchor_logprob_P": tempered}.get(
        argument, softmax_preference
    )
    with pytest.raises(SignalError, match=f"^{argument}: missing; this constructor"):
        step(group_state(**batch(**{argument: None})))


@pytest.mark.parametrize(("name", "argument"), [(n, a) for n, a in NEEDS if a.startswith("anchor_")])
@pytest.mark.parametrize("bad", [math.nan, 0.5])
def test_a_bad_log_probability_of_a_placed_anchor_is_named(name, argument, bad):
    logprob = torch.tensor([-1.0, bad, -1.0, bad])
    logprob = logprob[:, None].expand(4, 2) if argument.endswith("_PL") else logprob
    with pytest.raises(SignalError, match=f"^{argument}: prompt 1 "):
        construct(name, **batch(**{argument: logprob}))
    anchors = torch.tensor([True, False, True, False])
    assert construct(name, **batch(**{argument: logprob, "has_anchor_P": anchors})).plan.weights_N.isfinite().all()


def test_pass_at_k_wants_k_valid_rollouts():
    with pytest.raises(SignalError, match=r"^pass_k: 4 is more than the 3 valid rollouts of prompt 0"):
        construct("pass_at_k", **batch())
    with pytest.raises(SignalError, match=r"^pass_k: 3 is more than the 2 valid rollouts of prompt 1"):
        construct("pass_at_k", **batch(valid_PG=masked(*BOTH)), config=SignalConfig(pass_k=3))


@pytest.mark.parametrize("value", [-1.0, 4.0])
def test_bnpo_wants_mean_rewards_that_are_probabilities(value):
    with pytest.raises(SignalError, match=r"^rewards_PG: prompt 1 has a mean reward of"):
        construct("bnpo", **batch(rewards_PG=filled(value, *BOTH)))


def test_an_appended_row_wants_its_length():
    config = SignalConfig(normaliser="tokens")
    with pytest.raises(SignalError, match=r"^length_PG: shape \(4, 3\) .* \(4, 4\)"):
        construct("visurf", **batch(length_PG=torch.full((4, 3), 5)), config=config)
    assert construct("visurf", **batch(length_PG=torch.full((4, 4), 5)), config=config).plan.normaliser == 80


NANS, LONG = torch.tensor([-1.0, math.nan, -1.0, math.nan]), torch.full((4, 3), 5)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"tie_rule": "random"}, {}, "generator: missing"),
        ({"tie_rule": "highest_logprob"}, {"logprob_PG": None}, "logprob_PG: missing"),
        ({"normaliser": "tokens"}, {}, "length_PG: missing"),
        ({"normaliser": "tokens"}, {"length_PG": LONG[:, :2]}, r"length_PG: shape \(4, 2\) .* \(4, 3\)"),
        ({"anchor_weighting": "clipped"}, {"anchor_logprob_P": None}, "anchor_logprob_P: missing.*clipped"),
        ({"anchor_weighting": "luffy"}, {"anchor_logprob_P": None}, "anchor_logprob_P: missing.*luffy"),
        ({"anchor_weighting": "luffy"}, {"anchor_logprob_P": NANS[:3]}, r"anchor_logprob_P: shape \(3,\) .* \(4,\)"),
        ({"anchor_weighting": "clipped"}, {"anchor_logprob_P": NANS}, "anchor_logprob_P: prompt 1"),
        ({"anchor_weighting": "luffy"}, {"anchor_logprob_P": NANS}, "anchor_logprob_P: prompt 1"),
        ({"anchor_weighting": "clipped"}, {"anchor_logprob_P": NANS.nan_to_num(2.0)}, "anchor_logprob_P: prompt 1"),
        ({"normaliser": "tokens"}, {"length_PG": filled(math.nan, *BOTH, like=5.0)}, "length_PG: prompt 1"),
        ({"normaliser": "tokens"}, {"length_PG": filled(-1.0, *BOTH, like=5.0)}, "length_PG: prompt 1"),
    ],
)
def test_rules_that_miss_their_input(config, changes, message):
    with pytest.raises(SignalError, match=f"^{message}"):
        construct("recast", **batch(**changes), config=SignalConfig(**config))


@pytest.mark.parametrize("argument", ["length_PG", "anchor_logprob_P"])
def test_lists_serve_as_well_as_tensors(argument):
    lists = {"length_PG": [[5, 5, 5]] * 4, "anchor_logprob_P": [-1.0] * 4}
    config = {"length_PG": SignalConfig(normaliser="tokens"), "anchor_logprob_P": SignalConfig(anchor_weighting="luffy")}
    signal = construct("recast", **batch(**{argument: lists[argument]}), config=config[argument])
    assert len(signal.plan.rows_N) == 8


@pytest.mark.parametrize("width", [3, 4])
def test_pods_must_drop_something(width):
    with pytest.raises(SignalError, match=f"^pods_width: {width} must be below the group size 3"):
        construct("pods", **batch(), config=SignalConfig(pods_width=width))


POSITIVE = (
    *("whiten_eps", "gpg_norm", "bnpo_max_weight", "positive_weight", "rank_weight", "window_span"),
    *("care_scale", "care_delta", "sdpo_beta", "w_anchor"),
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("anchor_reward", 0.0),
        ("anchor_reward", math.nan),
        ("std_eps", 0.0),
        ("std_eps", -1e-6),
        ("std_eps", math.nan),
        ("std_ddof", 2),
        ("mean_eps", -1.0),
        ("mean_eps", math.nan),
        ("pods_width", 1),
        ("w_plus", 0.0),
        ("w_plus", math.inf),
        ("w_plus", math.nan),
        ("w_minus", -0.1),
        ("w_minus", math.inf),
        ("w_minus", math.nan),
        ("anchor_floor", 0.0),
        ("anchor_floor", 1.5),
        ("luffy_gamma", 0.0),
        ("luffy_gamma", math.nan),
        ("anchor_reward", math.inf),
        ("std_eps", math.inf),
        ("mean_eps", math.inf),
        ("luffy_gamma", math.inf),
        ("hit_above", math.nan),
        ("tie_rule", "last"),
        ("anchor_weighting", "shaped"),
        ("anchor_choice", "last"),
        ("normaliser", "rows"),
        ("singleton", "one"),
        ("pods_width", 2.5),
        *((name, 0) for name in ("pass_k", "care_negatives", "sdpo_negatives")),
        *((name, 1.5) for name in ("pass_k", "care_negatives", "sdpo_negatives")),
        *((name, value) for name in POSITIVE for value in (0.0, -1.0, math.nan, math.inf)),
        *((name, value) for name in ("window_low", "anchor_power") for value in (-0.1, math.nan, math.inf)),
        ("window_low", 1.0),
        ("window_span", 1.01),
        ("virtual_reward", math.nan),
        ("virtual_reward", math.inf),
    ],
)
def test_bad_config_fields(field, value):
    with pytest.raises(SignalError, match=rf"^SignalConfig\.{field}: {value}"):
        SignalConfig(**{field: value})


def test_a_window_may_not_end_above_one():
    with pytest.raises(SignalError, match=r"^SignalConfig\.window_span: 0.5 must end the window at 1 or below"):
        SignalConfig(window_low=0.6)


def test_an_unknown_config_field_is_refused():
    with pytest.raises(TypeError, match="w_pluss"):
        SignalConfig(**{"w_pluss": 1.0})


MASK = torch.tensor([[True, True], [False, True]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_anchor(MASK, "random"), "generator: missing"),
        (lambda: choose_anchor(MASK, "most_likely"), "logprob_PT: missing"),
        (lambda: choose_anchor(MASK, "last", torch.zeros(2, 2)), "rule: "),
        (lambda: choose_anchor(MASK, "most_likely", torch.zeros(2, 1)), "logprob_PT: shape"),
        (lambda: choose_anchor(MASK, "most_likely", torch.tensor([[0.0, math.nan], [0.0, 0.0]])), "logprob_PT: prompt 0"),
    ],
)
def test_choose_anchor_wants_its_rules_input(call, message):
    with pytest.raises(SignalError, match=f"^{message}"):
        call()


def test_choose_anchor_never_takes_a_masked_target():
    assert choose_anchor(MASK, "most_likely", torch.tensor([[-1.0, -2.0], [0.0, -math.inf]])).tolist() == [0, 1]


# The registry


@pytest.fixture
def only_the_best():
    """A user's own constructor, registered for one test."""

    @register("only_the_best", source="test", width="1")
    def only_the_best(state):
        return keep_nonzero(dataclasses.replace(centred(state), advantages_PG=centred(state).advantages_PG.clamp(min=0)))

    yield "only_the_best"
    unregister("only_the_best")


def test_a_users_constructor_needs_one_decorated_function(only_the_best):
    signal = construct(only_the_best, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    assert signal.constructor == only_the_best
    assert signal.advantages_PG.tolist() == [[0.0, 0.5], [0.0, 0.0]]
    assert signal.plan.rows_N.tolist() == [1]
    assert only_the_best in [c.name for c in list_constructors()]


def test_a_taken_name_is_refused_and_keeps_its_owner(only_the_best):
    for name in ("recast", only_the_best):
        owner = get_constructor(name)
        with pytest.raises(SignalError, match=f"^register: constructor '{name}' exists already"):
            register(name, source="test")(lambda state: state)
        assert get_constructor(name) is owner


@pytest.mark.parametrize("field", ["anchors", "all_zero", "needs"])
def test_metadata_outside_the_known_words_is_refused(field):
    value = ("sometimes",) if field == "needs" else "sometimes"
    with pytest.raises(SignalError, match=rf"^register: {field} 'sometimes' must be one of "):
        register("mine", source="test", **{field: value})(centred)
    assert "mine" not in [c.name for c in list_constructors()]


@pytest.mark.parametrize("call", [get_constructor, unregister, lambda name: construct(name, [[0, 1]])])
def test_an_unknown_name_lists_the_known_ones(call):
    with pytest.raises(SignalError, match=r"^constructor: 'grpoo' is not registered; did you mean grpo.*\? known: .*recast"):
        call("grpoo")


def test_unregistering_frees_the_name():
    for _ in range(2):
        register("mine", source="test")(centred)
        unregister("mine")
    with pytest.raises(SignalError, match=r"^constructor: 'mine'"):
        get_constructor("mine")


def test_a_constructor_object_needs_no_registration():
    signal = construct(get_constructor("grpo"), [[0, 1]])
    assert torch.equal(signal.advantages_PG, construct("grpo", [[0, 1]]).advantages_PG)
