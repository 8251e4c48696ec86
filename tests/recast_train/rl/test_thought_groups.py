"""Groups of thoughts: their expected update against exact gradients, one update against autograd on full logits."""

import itertools
from dataclasses import replace

import pytest
import torch
from thinking_world import (
    TARGETS,
    as_sampled,
    behind,
    every_thought,
    flat,
    gradient_of,
    method_of,
    plain_logprobs,
    rl_config,
    thinking_world,
)
from torch import Tensor

from recast_sim.signal import ObjectiveConfig, SignalError, UpdatePlan, construct
from recast_sim.thought_methods import ThoughtError
from recast_train.engine import Engine
from recast_train.model import SidModel, TrainError
from recast_train.rl.rl_config import RlConfig, ThoughtGroups
from recast_train.rl.rollout_groups import TrainPrompts
from recast_train.rl.thought_groups import (
    DrawnThoughts,
    draw_thoughts,
    rank_rows,
    scored_thoughts,
    thought_plan,
    thought_row,
)
from recast_train.rl.update import Passes, take_steps
from recast_train.rollout import RolloutConfig, ThoughtConfig

VERIFREE = "soft constructor=rloo answer=psr"
LOG = "log constructor=rloo answer=sft"
SHARES = "soft constructor=max_rl answer=reward_share"


def name_of(line: str) -> str:
    return line.split("constructor=")[1].split()[0]


def given(
    engine: Engine,
    model: SidModel,
    train: TrainPrompts,
    config: RlConfig,
    prompts: list[int],
    chosen: list[list[int]],
    sampled: Tensor | None = None,
) -> DrawnThoughts:
    """Groups of given thoughts, those of a prompt beside each other."""
    thoughts = as_sampled(chosen, config.rollout.thought.max_tokens)
    asked = train.tokens.take(torch.tensor(prompts).repeat_interleave(config.group_size))
    return scored_thoughts(engine, model, train, config, torch.tensor(prompts), behind(asked, thoughts), thoughts, sampled)


def update_of(
    engine: Engine, model: SidModel, config: RlConfig, drawn: DrawnThoughts, plan: UpdatePlan, reference: SidModel | None = None
) -> Tensor:
    """The gradient of the objective that an update climbs."""
    batch, rows = rank_rows(engine, drawn, plan, config, model.levels)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    log = take_steps(batch, model, reference, rows, still, Passes(config.objective))
    assert log["optimiser_steps"] == 1
    return -gradient_of(model)


def expected_update(engine: Engine, model: SidModel, train: TrainPrompts, line: str, group_size: int, longest: int) -> Tensor:
    """Of prompt 0: every group up to its order, each weighed by its chance, in one plan; a hard one's SIDs are listed too."""
    thoughts, config = every_thought(longest), rl_config(line, group_size, longest)
    method = method_of(config, line)
    chance_Z, _ = enumerated(model, train, 0, longest)
    outcomes, chance_O = [(z, -1) for z in range(len(thoughts))], chance_Z
    if method.kind == "hard":
        leaves = range(model.nodes[-1])
        outcomes = [(z, leaf) for z, _ in outcomes for leaf in leaves]
        tokens = train.tokens.tokens_PT[0][train.tokens.real_PT[0]].tolist()
        sid_ZY = [[float(plain_logprobs(model, tokens, z, leaf)[1].detach().sum().exp()) for leaf in leaves] for z in thoughts]
        chance_O = (chance_Z[:, None] * torch.tensor(sid_ZY)).flatten()
    groups = list(itertools.product(range(len(outcomes)), repeat=group_size))
    chance_C = chance_O.detach()[torch.tensor(groups)].prod(1)
    assert float(chance_C.sum()) == pytest.approx(1.0, abs=1e-4)
    chosen = [outcomes[number] for group in groups for number in group]
    sampled = torch.tensor([[leaf] for _, leaf in chosen]) if method.kind == "hard" else None
    drawn = given(engine, model, train, config, [0] * len(groups), [thoughts[z] for z, _ in chosen], sampled)
    plan, _ = thought_plan(drawn, method, config, model.levels)
    weights_N = (chance_C * len(groups))[plan.rows_N // (group_size * drawn.score_PGT.shape[2])]
    return update_of(engine, model, config, drawn, replace(plan, weights_N=weights_N))


def enumerated(model: SidModel, train: TrainPrompts, prompt: int, longest: int) -> tuple[Tensor, Tensor]:
    """pi(z | x) of every thought and p(targets | x, z) behind it, (Z,), with gradient."""
    tokens = train.tokens.tokens_PT[prompt][train.tokens.real_PT[prompt]].tolist()
    leaves = [leaf for leaf in train.target_leaf_NT[prompt].tolist() if leaf >= 0]
    chances, hits = [], []
    for thought in every_thought(longest):
        both = [plain_logprobs(model, tokens, thought, leaf) for leaf in leaves]
        chances.append(both[0][0].sum().exp())
        hits.append(torch.stack([of_sid.sum().exp() for _, of_sid in both]).sum())
    return torch.stack(chances), torch.stack(hits)


def exact(model: SidModel, train: TrainPrompts, what: str, longest: int) -> Tensor:
    chance_Z, hit_Z = enumerated(model, train, 0, longest)
    value = {"hit": (chance_Z * hit_Z).sum(), "log": (chance_Z * hit_Z.log()).sum(), "likelihood": (chance_Z @ hit_Z).log()}
    found = torch.autograd.grad(value[what], list(model.parameters()), allow_unused=True, materialize_grads=True)
    return flat(list(found))


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("line", "what", "longest"),
    [(VERIFREE, "hit", 1), (VERIFREE, "hit", 2), (LOG, "log", 1), (LOG, "log", 2), ("hard constructor=rloo", "hit", 1)],
)
def test_the_expected_update_is_the_exact_gradient(line: str, what: str, longest: int, engine: Engine) -> None:
    """VeriFree's (arXiv 2505.21493) and the hard one's that of the thoughts' mean p, the log's that of their mean log p."""
    model, train = thinking_world()
    wanted = exact(model, train, what, longest)
    assert off(expected_update(engine, model, train, line, 2, longest), wanted) < 1e-3
    assert all(
        off(exact(model, train, other, longest), wanted) > 0.05 for other in ("hit", "log", "likelihood") if other != what
    )


def test_shares_near_the_likelihood_as_the_group_grows(engine: Engine) -> None:
    model, train = thinking_world()
    wanted = exact(model, train, "likelihood", 1)
    gaps = [off(expected_update(engine, model, train, SHARES, size, 1), wanted) for size in (2, 3, 5)]
    assert gaps[0] > 1.2 * gaps[1] > 1.2 * 1.2 * gaps[2] > 0


@pytest.mark.parametrize(("line", "what"), [(VERIFREE, "hit"), (LOG, "log")])
def test_the_mean_of_sampled_updates_is_near_it(line: str, what: str, engine: Engine) -> None:
    """One batch of many groups of one prompt is their mean. Every group listed, in place of drawn ones, leaves no noise."""
    model, train = thinking_world(1)
    config = rl_config(line, 4, 1, prompts_per_step=400)
    method = method_of(config, line)
    drawn = draw_thoughts(engine, engine.prepare(model), train, method, config, 7)
    plan, _ = thought_plan(drawn, method, config, model.levels)
    wanted = exact(model, train, what, 1)
    gap = off(update_of(engine, model, config, drawn, plan), wanted)
    assert gap < 0.05
    assert off(expected_update(engine, model, train, line, 2, 1), wanted) < gap / 10


LINES = [
    VERIFREE,
    LOG,
    SHARES,
    "soft constructor=grpo",
    "soft constructor=max_rl answer=reward_share by_target=true",
    "hard constructor=grpo",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("normaliser", ["active_rows", "tokens"])
def test_an_update_is_that_of_autograd_on_full_logits(line: str, normaliser: str, engine: Engine) -> None:
    """Ragged thoughts, temperatures, and a KL term; the numbers are made by hand from plain forwards."""
    model, train = thinking_world()
    reference, temperatures, G, kl = thinking_world()[0], (1.7, 2.0), 4, 0.1
    with torch.no_grad():
        reference.lm.lm_head.weight.mul_(0.7)
    signal = replace(RlConfig().signal, normaliser=normaliser)
    more = {"prompts_per_step": 12 if line.startswith("hard") else 5, "objective": ObjectiveConfig(kl=kl), "signal": signal}
    config = rl_config(line, G, 3, temperatures, **more)
    method = method_of(config, line)
    drawn = draw_thoughts(engine, model, train, method, config, 2)
    plan, _ = thought_plan(drawn, method, config, model.levels)
    found = update_of(engine, model, config, drawn, plan, reference)
    assert len(set(drawn.length_PG.flatten().tolist())) > 1

    groups = []  # a prompt, or one of its targets: thoughts, leaves behind each, log-probabilities
    for place, prompt in enumerate(drawn.prompt_P.tolist()):
        tokens = train.tokens.tokens_PT[prompt][train.tokens.real_PT[prompt]].tolist()
        rows = range(place * G, (place + 1) * G)
        thoughts = [drawn.thoughts.tokens_PS[row][drawn.thoughts.sampled_PS[row]].tolist() for row in rows]
        targets = [leaf for leaf in TARGETS[prompt].tolist() if leaf >= 0]
        sets = [[leaf] for leaf in targets] if method.by_target else [targets]
        for number, leaves in enumerate(sets):
            behind_G = [drawn.leaf_RT[row].tolist() for row in rows] if method.kind == "hard" else [leaves] * G
            groups.append((tokens, thoughts, behind_G, targets, number == 0))
    rewards, passes, lengths = [], [], []
    for tokens, thoughts, behind_G, targets, _ in groups:
        own = [
            [plain_logprobs(model, tokens, z, leaf, temperatures) for leaf in leaves]
            for z, leaves in zip(thoughts, behind_G, strict=True)
        ]
        passes.append(own)
        lengths.append([len(z) + model.levels for z in thoughts])
        if method.kind == "hard":
            rewards.append([float(leaves[0] in targets) for leaves in behind_G])
        else:
            hits = [torch.stack([of_sid.sum() for _, of_sid in rows]).logsumexp(0).item() for rows in own]
            rewards.append(hits)
    logprob_NG = torch.tensor(rewards, dtype=torch.float64)
    how = {"config": signal, "length_PG": torch.tensor(lengths)}
    base = construct(method.constructor, logprob_NG if method.kind != "soft" else logprob_NG.exp(), **how)
    thought_NG = (base.advantages_PG / base.plan.normaliser) * base.active_PG
    if method.kind == "hard":
        answer_NG = thought_NG
    elif method.answer == "sft":
        answer_NG = torch.full_like(logprob_NG, 1 / logprob_NG.numel())
    elif method.answer:
        other = construct(method.answer, logprob_NG.exp(), **how)
        answer_NG = other.advantages_PG / other.plan.normaliser
    else:
        answer_NG = torch.zeros_like(logprob_NG)
    total, penalty = torch.zeros((), dtype=torch.float64), torch.zeros(())
    trained: dict[tuple[int, int], float] = {}  # the thought of a prompt has the sum of its targets' numbers
    for n, (tokens, thoughts, behind_G, _, first) in enumerate(groups):
        place = n if not method.by_target else sum(group[4] for group in groups[: n + 1]) - 1
        for g, z in enumerate(thoughts):
            of_thought = passes[n][g][0][0]
            total = total + thought_NG[n, g] * of_thought.sum()
            total = total + answer_NG[n, g] * torch.stack([of_sid.sum() for _, of_sid in passes[n][g]]).logsumexp(0)
            trained[place, g] = trained.get((place, g), 0.0) + float(thought_NG[n, g])
            with torch.no_grad():
                held = [plain_logprobs(reference, tokens, z, leaf, temperatures) for leaf in behind_G[g]]
            if float(answer_NG[n, g]):
                gaps = [old - new for (_, new), (_, old) in zip(passes[n][g], held, strict=True)]
                penalty = penalty + sum((gap.exp() - gap - 1).sum() for gap in gaps)
            if first and (trained[place, g] or method.by_target):
                gap = held[0][0] - of_thought
                penalty = penalty + (gap.exp() - gap - 1).sum()
    value = total - kl * penalty / base.plan.normaliser
    wanted = flat(list(torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)))
    assert off(found, wanted.float()) < 2e-3
    assert float(thought_NG.abs().max()) > 0


@pytest.mark.parametrize(
    "line", ["soft constructor=grpo", "log constructor=rloo", "soft constructor=max_rl", "hard constructor=grpo"]
)
def test_thoughts_that_are_all_alike_move_nothing(line: str, engine: Engine) -> None:
    """In several batches and beside other groups their rewards are equal to the last digit; no row reaches a pass."""
    model, train = thinking_world()
    config = rl_config(line, 3, 2)
    method, same = method_of(config, line), [[16, 14]] * 3
    sampled = torch.full((9, 1), 19) if method.kind == "hard" else None
    drawn = given(engine, model, train, config, [0, 1, 2], same * 3, sampled)
    plan, signal = thought_plan(drawn, method, config, model.levels)
    assert len(plan.rows_N) == 0
    assert not signal.learnable_P.any()
    assert thought_row(drawn, method)["thought_distinct"] == pytest.approx(1 / 3)
    before = [p.detach().clone() for p in model.parameters()]
    batch, rows = rank_rows(engine, drawn, plan, config, model.levels)
    log = take_steps(batch, model, None, rows, torch.optim.SGD(model.parameters(), lr=1.0), Passes(config.objective))
    assert log["optimiser_steps"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    mixed = given(engine, model, train, config, [0, 1, 2], [*same, [16, 14], [17, 14], [14], *same], sampled)
    if method.kind != "hard":
        plan, signal = thought_plan(mixed, method, config, model.levels)
        assert signal.learnable_P.tolist() == [False, True, False]
        assert set((plan.rows_N // (3 * 2)).tolist()) == {1}


def test_with_an_answer_their_sid_alone_moves(engine: Engine) -> None:
    model, train = thinking_world()
    config = rl_config(VERIFREE, 3, 2)
    drawn = given(engine, model, train, config, [0, 1], [[16, 14]] * 6)
    plan, _ = thought_plan(drawn, method_of(config, VERIFREE), config, model.levels)
    assert len(plan.rows_N) == 2 * 3 * 2
    assert (plan.advantages_NL[:, 0] == 0).all()
    assert (plan.advantages_NL[:, 1] > 0).all()
    assert len(drawn.prompts.tokens_PT) == 2  # what is equal is computed once


def test_hand_computed_numbers() -> None:
    """Two thoughts of one prompt with p = 0.1 + 0.1 and 0.1 + 0.5 over two targets."""
    thoughts = as_sampled([[16, 14], [14]], 2)
    logprobs = torch.tensor([[[0.1, 0.1], [0.1, 0.5]]], dtype=torch.float64).log()
    prompts = thinking_world(1)[1].tokens
    drawn = DrawnThoughts(
        torch.tensor([0]), prompts, torch.tensor([0, 1]), thoughts, 1, TARGETS[:1], logprobs, thoughts.length_P[None], 1.0
    )
    config = rl_config(VERIFREE)
    plan, signal = thought_plan(drawn, method_of(config, VERIFREE), config, 3)
    assert plan.rows_N.tolist() == [0, 1, 2, 3]
    wanted = [[-0.4, 0.2 * 0.5], [0.0, 0.2 * 0.5], [0.4, 0.6 / 6], [0.0, 0.6 * 5 / 6]]
    assert torch.allclose(plan.advantages_NL, torch.tensor(wanted))
    assert plan.normaliser == 2
    assert signal.learnable_P.tolist() == [True]
    row = thought_row(drawn, method_of(config, VERIFREE))
    assert row == pytest.approx(
        {"thought_length": 1.5, "thought_distinct": 1.0, "soft_reward": 0.4, "soft_reward_log": -1.0601317681000455}
    )
    each = rl_config(VERIFREE + " by_target=true")
    plan, _ = thought_plan(drawn, method_of(each, VERIFREE), each, 3)
    wanted = [[-0.4, 0.1], [0.0, 0.1], [0.4, 0.1], [0.0, 0.5]]
    assert torch.allclose(plan.advantages_NL, torch.tensor(wanted))
    assert plan.normaliser == 4


def test_a_prompts_thoughts_do_not_depend_on_the_kind(engine: Engine) -> None:
    model, train = thinking_world()
    drawn = {}
    for line in (VERIFREE, LOG, "hard constructor=rloo"):
        config = rl_config(line, 4, 3, prompts_per_step=5)
        drawn[line] = draw_thoughts(engine, model, train, method_of(config, line), config, 2)
    first = drawn[VERIFREE]
    for other in drawn.values():
        assert torch.equal(other.prompt_P, first.prompt_P)
        assert torch.equal(other.thoughts.tokens_PS, first.thoughts.tokens_PS)


def test_a_micro_batch_changes_nothing(engine: Engine) -> None:
    model, train = thinking_world()
    found = []
    for limit in (0, 30):
        config = rl_config(VERIFREE, 4, 3, prompts_per_step=5, micro_batch_tokens=limit)
        drawn = draw_thoughts(engine, model, train, method_of(config, VERIFREE), config, 2)
        plan, _ = thought_plan(drawn, method_of(config, VERIFREE), config, model.levels)
        batch, rows = rank_rows(engine, drawn, plan, config, model.levels)
        assert len(batch.cut(model, torch.arange(len(batch.leaf_N)))) > 1 if limit else True
        take_steps(batch, model, None, rows, torch.optim.SGD(model.parameters(), lr=0.0), Passes(config.objective))
        found.append(gradient_of(model))
    assert off(found[1], found[0]) < 1e-4


def test_off_policy_steps_clip_tokens_of_thoughts_too(engine: Engine) -> None:
    """The share of clipped tokens is of those that are trained: padding and what has no number are none."""
    model, train = thinking_world()
    line = "soft constructor=grpo"
    config = rl_config(line, 4, 3, prompts_per_step=6)
    method = method_of(config, line)
    drawn = draw_thoughts(engine, model, train, method, config, 2)
    plan, _ = thought_plan(drawn, method, config, model.levels)
    batch, rows = rank_rows(engine, drawn, plan, config, model.levels)
    always = ObjectiveConfig(clip_low=0.0, clip_high=0.0)
    log = take_steps(batch, model, None, rows, torch.optim.SGD(model.parameters(), lr=1e-3), Passes(always, updates=2))
    assert 0.5 < log["clip_share"] <= 1.0  # a step uphill: most ratios have left 1 on the side where the clip binds


@pytest.mark.parametrize(
    ("line", "change", "error", "message"),
    [
        (
            VERIFREE,
            {"rollout": RolloutConfig()},
            TrainError,
            r"rl\.rollout\.thought\.max_tokens: 0 samples no thought; 'soft' needs",
        ),
        (
            VERIFREE,
            {"rollout": RolloutConfig("beam", 1.0, ThoughtConfig(2))},
            TrainError,
            r"rl\.rollout\.method: 'beam' does not fit",
        ),
        (VERIFREE, {"probe_every": 2}, TrainError, r"rl\.probe_every: 2 is not made for groups of thoughts"),
        (
            VERIFREE,
            {"rollout": RolloutConfig("iid", 1.0, ThoughtConfig(2), 1)},
            TrainError,
            r"rl\.rollout\.hint_levels: 1 is not made for",
        ),
        (VERIFREE, {"thoughts": ThoughtGroups("none", "psr")}, TrainError, r"rl\.thoughts\.kind: 'none' stands beside answer"),
        ("soft constructor=recast", {}, ThoughtError, "constructor 'recast' reads structural_PG, has_anchor_P"),
        ("soft constructor=dapo", {}, ThoughtError, "constructor 'dapo' redraws groups"),
        (
            "soft constructor=rloo",
            {"thoughts": ThoughtGroups("hard", "psr")},
            ThoughtError,
            "answer and by_target are of kinds",
        ),
        ("soft constructor=rloo", {"thoughts": ThoughtGroups("soft", "nothing")}, SignalError, "'nothing' is not registered"),
    ],
)
def test_what_does_not_fit_is_refused(line: str, change: dict, error: type[Exception], message: str) -> None:
    name = name_of(line)
    with pytest.raises(error, match=message):
        replace(rl_config(VERIFREE), **change).thought_method(name)
