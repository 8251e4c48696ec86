import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from worlds import small_base, small_environment

from recast_sim.runs import Run, RunWriter, read_run
from recast_sim.signal import ObjectiveConfig, SignalConfig, get_constructor, list_constructors
from recast_sim.signal.groups import signal_of
from recast_sim.training.loop import train
from recast_sim.training.plan_update import UpdateError, plan_gradient_norm, update
from recast_sim.training.training_config import TrainingConfig, TrainingError
from recast_sim.training.world_groups import draw_groups, roll_out
from recast_sim.world.generators import torch_generator
from recast_sim.world.learning import Start
from recast_sim.world.policy import PolicyError, TreePolicy

CONFIG = TrainingConfig(group_size=8, prompts_per_step=16, steps=6, evaluate_every=3, signal=SignalConfig(pods_width=4))


def run(path: Path, config: TrainingConfig) -> tuple[Run, TreePolicy]:
    policy = copy.deepcopy(small_base())
    writer = RunWriter.create(path, "simulation", dataclasses.asdict(config), seed=0)
    train(policy, Start(small_base(), small_environment()), config, 0, writer)
    writer.close()
    return read_run(path), policy


@pytest.mark.parametrize("name", [c.name for c in list_constructors()])
def test_every_constructor_trains_and_counts_its_budget(name: str, tmp_path: Path) -> None:
    done, policy = run(tmp_path, dataclasses.replace(CONFIG, constructor=name))
    assert done.status == "complete"
    assert done.steps["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert done.evals["step"].to_list() == [0, 3, 6]
    last = done.steps.tail(1).to_dicts()[0]
    assert last["optimiser_steps"] == (done.steps["update_width"] > 0).sum() > 0
    assert last["actor_tokens"] == 3 * last["actor_rows"]
    assert any(not torch.equal(a, b) for a, b in zip(policy.parameters(), small_base().parameters(), strict=True))
    if name == "dapo":
        assert last["rollouts"] > 6 * 16 * 8  # thrown-away rollouts count
        assert done.steps["learnable"].min() == 1
    else:
        assert last["rollouts"] == 6 * 16 * 8
        assert len(done.groups) == 6 * 16
        assert done.groups["learnable"].mean() == pytest.approx(done.steps["learnable"].mean())
        assert (done.groups["regime"] == 0).mean() == pytest.approx(done.steps["before_all_zero"].mean())


def test_redraws_keep_only_learnable_groups_and_stop_at_the_limit() -> None:
    world, policy, config = small_environment(), small_base(), SignalConfig()

    def draw(attempt: int):
        return roll_out(policy, world, torch.arange(16), 4, "iid", config, torch_generator(attempt))

    two = draw_groups(draw, get_constructor("dapo"), config, groups=1000, max_draws=2, seed=0)
    assert two.drawn == 2 * 16 * 4
    assert signal_of(two, get_constructor("dapo"), config, torch_generator(0)).learnable_P.all()
    few = draw_groups(draw, get_constructor("dapo"), config, groups=3, max_draws=10, seed=0)
    assert len(few.prompt_P) == 3


def test_only_kept_rows_reach_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    world, policy, reference = small_environment(), copy.deepcopy(small_base()), copy.deepcopy(small_base())
    config = dataclasses.replace(CONFIG, objective=ObjectiveConfig(kl=0.1))
    batch = roll_out(policy, world, torch.arange(16), 8, "iid", config.signal, torch_generator(0))
    signal = signal_of(batch, get_constructor("recast"), config.signal, torch_generator(0))
    seen: list[int] = []
    original = TreePolicy.path_logprobs

    def counting(self: TreePolicy, x_PD: torch.Tensor, leaf_PR: torch.Tensor) -> torch.Tensor:
        seen.append(leaf_PR.numel())
        return original(self, x_PD, leaf_PR)

    monkeypatch.setattr(TreePolicy, "path_logprobs", counting)
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.1)
    update(policy, reference, world, batch, signal, optimiser, config.objective, updates=2)
    assert seen == [len(signal.plan.rows_N)] * 4  # old, reference, actor twice
    assert len(signal.plan.rows_N) <= 2 * 16


def test_first_update_is_the_plan_times_the_score() -> None:
    """On-policy, the gradient is sum of coefficient * grad log pi: clip and ratio play no part."""
    world, policy = small_environment(), copy.deepcopy(small_base())
    config = dataclasses.replace(CONFIG, optimiser="sgd", learning_rate=1.0)
    batch = roll_out(policy, world, torch.arange(16), 8, "iid", config.signal, torch_generator(0))
    signal = signal_of(batch, get_constructor("grpo"), config.signal, torch_generator(0))
    prompt, leaf = batch.prompt_P[signal.plan.rows_N // 8], batch.leaf_PG.reshape(-1)[signal.plan.rows_N]
    logprob = policy.path_logprobs(world.train.x_ND[prompt], leaf[:, None]).sum((1, 2))
    expected = torch.autograd.grad((signal.plan.coefficients_N * logprob).sum(), list(policy.parameters()))
    before = [p.detach().clone() for p in policy.parameters()]
    update(policy, policy, world, batch, signal, torch.optim.SGD(policy.parameters(), lr=1.0), config.objective)
    for old, new, gradient in zip(before, policy.parameters(), expected, strict=True):
        torch.testing.assert_close(new.detach() - old, gradient, rtol=1e-4, atol=1e-6)


def test_clip_binds_and_kl_holds_the_policy_back(tmp_path: Path) -> None:
    free, _ = run(tmp_path / "a", dataclasses.replace(CONFIG, updates_per_batch=4, learning_rate=0.3, constructor="sft"))
    assert free.steps["clip_share"].max() > 0
    still, _ = run(tmp_path / "b", dataclasses.replace(CONFIG, constructor="sft", steps=30, learning_rate=0.05))
    held, _ = run(
        tmp_path / "c",
        dataclasses.replace(CONFIG, constructor="sft", steps=30, learning_rate=0.05, objective=ObjectiveConfig(kl=3.0)),
    )
    assert held.steps["kl"].tail(5).mean() > 0
    gain = [r.evals["train_pass_at_1_sampled"][-1] - r.evals["train_pass_at_1_sampled"][0] for r in (still, held)]
    assert gain[1] < 0.7 * gain[0]


def test_same_numbers_twice_and_after_a_resume(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, checkpoint_every=2)
    whole, policy = run(tmp_path / "whole", config)
    torn = tmp_path / "torn"
    writer = RunWriter.create(torn, "simulation", dataclasses.asdict(config), seed=0)

    def fall_over(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), config, 0, writer, fall_over)
    resumed_policy = copy.deepcopy(small_base())
    writer = RunWriter.resume(torn, dataclasses.asdict(config), 0)
    train(resumed_policy, Start(small_base(), small_environment()), config, 0, writer)
    writer.close()
    resumed = read_run(torn)
    assert resumed.steps.equals(whole.steps)
    assert resumed.evals.equals(whole.evals)
    assert resumed.groups.sort("step", "prompt").equals(whole.groups.sort("step", "prompt"))
    for a, b in zip(policy.parameters(), resumed_policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_running_baselines_survive_a_kill(tmp_path: Path) -> None:
    """spo's resumed run goes on with the baselines that its prompts had."""
    config = dataclasses.replace(CONFIG, constructor="spo", steps=12, checkpoint_every=5)
    whole, _ = run(tmp_path / "whole", config)
    torn = RunWriter.create(tmp_path / "torn", "simulation", dataclasses.asdict(config), seed=0)

    def stop(step: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), config, 0, torn, stop)
    writer = RunWriter.resume(tmp_path / "torn", dataclasses.asdict(config), seed=0)
    train(copy.deepcopy(small_base()), Start(small_base(), small_environment()), config, 0, writer)
    writer.close()
    assert read_run(tmp_path / "torn").steps.equals(whole.steps)


def test_a_borrowed_norm_is_the_norm_of_the_step() -> None:
    """Under SGD at rate 1 the step is as long as the gradient that grpo would have had on the same groups."""
    world, policy = small_environment(), copy.deepcopy(small_base())
    batch = roll_out(policy, world, torch.arange(16), 8, "iid", CONFIG.signal, torch_generator(0))
    signal = signal_of(batch, get_constructor("recast"), CONFIG.signal, torch_generator(0))
    wanted = plan_gradient_norm(policy, world, batch, get_constructor("grpo"), CONFIG.signal, 0)
    before = torch.cat([p.detach().flatten().clone() for p in policy.parameters()])
    optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    update(policy, policy, world, batch, signal, optimiser, CONFIG.objective, gradient_norm=wanted)
    after = torch.cat([p.detach().flatten() for p in policy.parameters()])
    assert wanted > 0
    assert (after - before).norm().item() == pytest.approx(wanted, rel=1e-3)
    sure = roll_out(policy, world, torch.arange(16), 8, "iid", CONFIG.signal, torch_generator(0))
    nothing = dataclasses.replace(sure, rewards_PG=torch.zeros_like(sure.rewards_PG))
    assert plan_gradient_norm(policy, world, nothing, get_constructor("grpo"), CONFIG.signal, 0) == 0


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, checkpoint_every=1, objective=ObjectiveConfig(kl=0.1))
    policy, reference = copy.deepcopy(small_base()), copy.deepcopy(small_base())
    writer = RunWriter.create(tmp_path, "simulation", dataclasses.asdict(config), seed=0)

    def poison(step: int) -> None:
        if step == 2:
            torch.nn.init.constant_(reference.biases[0], torch.nan)

    with pytest.raises(UpdateError, match="loss: nan with constructor recast; lower learning_rate"):
        train(policy, Start(reference, small_environment()), config, 0, writer, poison)
    assert read_run(tmp_path).steps["step"].to_list() == [1, 2]
    assert (tmp_path / "checkpoints" / "step-00000002" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("group_size", 0), ("learning_rate", 0.0), ("checkpoint_every", -1)]
)
def test_bad_config_names_the_field(field: str, value: float) -> None:
    with pytest.raises(TrainingError, match=f"TrainingConfig.{field}: {value}"):
        dataclasses.replace(CONFIG, **{field: value})


def test_hinted_rollouts_start_with_the_targets_codes_and_train_the_others() -> None:
    world, policy = small_environment(), copy.deepcopy(small_base())
    groups = roll_out(policy, world, torch.arange(16), 8, "iid", CONFIG.signal, torch_generator(0), hint_levels=1)
    codes = torch.from_numpy(world.catalog.leaf_codes)
    target_PT = world.train.target_NT[:16]
    assert (codes[groups.leaf_PG][..., 0] == codes[target_PT[:, :1]][..., 0]).all()
    path_PGL = policy.path_logprobs(world.train.x_ND[:16], groups.leaf_PG)
    torch.testing.assert_close(groups.logprob_PG, path_PGL[..., 1:].sum(2).detach(), rtol=1e-4, atol=1e-5)
    free = roll_out(policy, world, torch.arange(16), 8, "iid", CONFIG.signal, torch_generator(0))
    assert groups.rewards_PG.mean() > free.rewards_PG.mean()


@pytest.mark.parametrize("constructor", ["grpo", "recast", "sapo"])
def test_given_codes_are_not_trained_but_in_anchors(constructor: str, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, constructor=constructor, hint_levels=1, optimiser="sgd", learning_rate=0.1)
    policy = copy.deepcopy(small_base())
    before = [head.detach().clone() for head in policy.vectors]
    writer = RunWriter.create(tmp_path, "simulation", dataclasses.asdict(config), seed=0)
    train(policy, Start(small_base(), small_environment()), config, 0, writer)
    moved = [not torch.equal(head, old) for head, old in zip(policy.vectors, before, strict=True)]
    assert moved == [constructor == "recast", *[True] * (policy.levels - 1)]


def test_hints_need_independent_draws_and_a_level_to_draw() -> None:
    with pytest.raises(TrainingError, match="hint_levels: 1 needs sampler 'iid', not 'beam'"):
        dataclasses.replace(CONFIG, hint_levels=1, sampler="beam")
    levels = small_base().levels
    with pytest.raises(PolicyError, match=f"hint_levels: {levels} leaves nothing to draw of {levels} levels"):
        roll_out(small_base(), small_environment(), torch.arange(2), 4, "iid", CONFIG.signal, torch_generator(0), levels)
