"""Two processes under torchrun that run checks of the engine, and the small training loop that they share with one process.

As a script: `engine_world.py FOLDER CHECK`, every rank leaves `CHECK-RANK.json` in the folder.
"""

import copy
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sid_world import questions, tiny_catalog, tiny_model, tiny_prompts
from thinking_world import BEGIN, END, method_of, rl_config, thinking_world
from torch import Tensor
from updating import update

from recast_sim.runs import atomic_directory
from recast_sim.runs.model_state import read_tensors, write_tensors
from recast_sim.signal import ObjectiveConfig, UpdatePlan, construct
from recast_train.engine import Engine, EngineConfig, State, split_plan
from recast_train.model import PromptTokens, TrainError
from recast_train.model.shared_prompts import packed_logprobs
from recast_train.rl.micro_batches import RankBatch
from recast_train.rl.thought_groups import draw_thoughts, rank_rows, thought_plan, thought_row
from recast_train.rl.update import Passes, take_steps
from recast_train.rollout import ThoughtConfig, ThoughtMarkers, sample_rollouts
from recast_train.thought_scores import thought_scores_over_ranks

P, G, STEPS, UPDATES = 4, 6, 4, 2
ROOT = Path(__file__).parents[2]


def launch(folder: Path, check: str, seconds: float = 300, script: str = __file__) -> tuple[int, str, list[Any]]:
    """Run a check of a script on two gloo processes: exit code, what they printed, what each rank found (None where nothing).

    torchrun lets the system choose its port; whatever still runs after `seconds` is killed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "helpers")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.Popen(
        [*command, script, str(folder), check],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = run.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        printed, _ = run.communicate()
        raise AssertionError(f"{check}: still running after {seconds} s\n{printed}") from None
    files = [folder / f"{check}-{rank}.json" for rank in range(2)]
    return run.returncode, printed, [json.loads(file.read_text()) if file.exists() else None for file in files]


def batch(step: int, constructor: str) -> tuple[UpdatePlan, Tensor]:
    """A plan over (P, G) and the rollouts' leaves; from the second half of the prompts no row is kept at step 2."""
    rng = np.random.default_rng(step)
    rewards = (rng.random((P, G)) < 0.3).astype(np.float32)
    rewards[0, :2] = (1.0, 0.0)
    has_anchor = torch.ones(P, dtype=torch.bool)
    if step == 2:
        rewards[P // 2 :], has_anchor[P // 2 :] = 0.0, False
    structural = np.where(rewards > 0, 1.0, rng.choice([0.0, 0.01, 0.1], (P, G)))
    leaves = torch.from_numpy(rng.integers(0, tiny_catalog().leaves, (P, G)))
    return construct(constructor, rewards, structural, has_anchor_P=has_anchor).plan, leaves


class Training:
    """A model and its frozen reference, trained on the batches of a constructor with old log-probabilities and a KL term."""

    def __init__(self, engine: Engine, constructor: str, rate: float = 0.01) -> None:
        self.engine, self.constructor = engine, constructor
        reference = tiny_model(tiny_catalog(), seed=1, scale=3.0).requires_grad_(False)
        self.reference = engine.prepare(reference)
        self.model = engine.prepare(tiny_model(tiny_catalog(), scale=3.0))
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.0)
        self.log: list[dict[str, float]] = []

    def run(self, first: int, last: int) -> "Training":
        for step in range(first, last + 1):
            self.step(*batch(step, self.constructor), step)
        return self

    def step(self, plan: UpdatePlan, leaf_PG: Tensor, step: int) -> None:
        engine, share = self.engine, self.engine.share(P)
        whole = tiny_prompts(tiny_catalog(), P, seed=step)
        prompts = PromptTokens(whole.tokens_PT[share], whole.real_PT[share])
        rows = split_plan(plan, G, share)
        passes = (prompts, rows.plan.rows_N // G, leaf_PG[share].flatten()[rows.plan.rows_N])
        with torch.no_grad():
            sampled = self.model(sample_rollouts, prompts, G, torch.Generator().manual_seed(step))
            old_NL = self.model(packed_logprobs, *passes)
            reference_NL = self.reference(packed_logprobs, *passes)
        for _ in range(UPDATES):
            new_NL = self.model(packed_logprobs, *passes)
            result = rows.objective(new_NL, old_NL, reference_NL, ObjectiveConfig(kl=0.1))
            loss, norm = engine.descend(self.model, result.loss, self.optimiser, max_norm=1.0)
            kl, clip_share = (engine.mean(value, rows.count) for value in (result.kl, result.clip_share))
            self.log.append({"loss": loss, "norm": norm, "kl": kl, "clip_share": clip_share})
        every = engine.gather(sampled.logprob_PG)
        self.log[-1] |= {"rollouts": every.shape[0], "rows": float(engine.all_sum(rows.count)[0]), "emitted": len(new_NL)}

    def save(self, folder: Path) -> "Training":
        state = self.engine.state(self.model, self.optimiser)

        def write() -> None:
            with atomic_directory(folder) as temporary:
                write_tensors(temporary, state.model, state.optimiser, constructor=self.constructor)

        self.engine.on_main(write)
        return self

    def load(self, folder: Path) -> "Training":
        state = State()

        def read() -> dict[str, object]:
            nonlocal state
            model, optimiser, meta = read_tensors(folder)
            state = State(model, optimiser)
            return meta

        assert self.engine.on_main(read) == {"constructor": self.constructor}
        self.engine.load(state, self.model, self.optimiser)
        return self


def train(engine: Engine, folder: Path, strategy: str) -> dict[str, Any]:
    """Whole runs of two constructors, saved half-way and at the end, and one that goes on from half of one process."""
    found: dict[str, Any] = {"world": engine.world, "rank": engine.rank}
    for constructor in ("grpo", "recast"):
        training = Training(engine, constructor).run(1, STEPS // 2).save(folder / f"{strategy}-{constructor}-half")
        training.run(STEPS // 2 + 1, STEPS).save(folder / f"{strategy}-{constructor}")
        found[constructor] = training.log
    resumed = Training(engine, "recast").load(folder / "single-recast-half").run(STEPS // 2 + 1, STEPS)
    resumed.save(folder / f"{strategy}-resumed")
    found["resumed"] = resumed.log
    found["elements"] = sum(getattr(w, "to_local", lambda w=w: w)().numel() for w in training.model.parameters())
    # an optimiser that took no step has no state, before or after
    fresh = Training(engine, "recast").save(folder / f"{strategy}-fresh")
    found["fresh"] = list(fresh.run(1, 1).load(folder / f"{strategy}-fresh").run(1, 1).log)
    best = engine.state(fresh.save(folder / f"{strategy}-first").model)
    engine.load(best, fresh.run(2, 2).model)
    fresh.save(folder / f"{strategy}-best")
    return found


def limited(engine: Engine, limit: int) -> dict[str, Any]:
    """Two batches by `update` with passes of at most `limit` positions, and which passes of the first only fill up."""
    training, share, found = Training(engine, "recast"), engine.share(P), {"log": []}
    for step in (1, 2):
        plan, leaf_PG = batch(step, "recast")
        whole, rows = tiny_prompts(tiny_catalog(), P, seed=step), split_plan(plan, G, share)
        prompts = PromptTokens(whole.tokens_PT[share], whole.real_PT[share])
        leaf_N = leaf_PG[share].flatten()[rows.plan.rows_N]
        if step == 1 and limit:
            own = RankBatch(engine, prompts, rows.plan.rows_N // G, leaf_N, 1.0, limit)
            found["counted"] = [counted for _, counted in own.cut(training.model, torch.arange(len(leaf_N)))]
        passes = Passes(ObjectiveConfig(kl=0.1), updates=2, max_norm=1.0)
        models = training.model, training.reference
        log = update(engine, *models, prompts, rows, leaf_N, G, training.optimiser, passes, limit=limit)
        found["log"].append({name: log[name] for name in ("loss", "gradient_norm", "kl", "clip_share", "actor_tokens")})
    return found


def thinking(engine: Engine) -> dict[str, Any]:
    """A step of groups of thoughts of each kind, and what is evaluated behind thoughts."""
    found: dict[str, Any] = {}
    for kind, line in (("soft", "soft constructor=rloo answer=psr"), ("hard", "hard constructor=grpo")):
        model, train = thinking_world()
        config = rl_config(line, G, 3, (1.0, 2.0), prompts_per_step=P, objective=ObjectiveConfig(kl=0.1))
        method, reference = method_of(config, line), copy.deepcopy(model).requires_grad_(False)
        reference.lm.lm_head.weight.mul_(0.7)
        models = engine.prepare(model), engine.prepare(reference)
        drawn = draw_thoughts(engine, models[0], train, method, config, 4)
        plan, _ = thought_plan(drawn, method, config, model.levels)
        optimiser = torch.optim.SGD(models[0].parameters(), lr=0.01)
        batch, rows = rank_rows(engine, drawn, plan, config, model.levels)
        log = take_steps(batch, *models, rows, optimiser, Passes(config.objective, updates=2))
        names = ("loss", "gradient_norm", "kl", "clip_share", "actor_tokens")
        found[kind] = {name: log[name] for name in names} | thought_row(drawn, method) | {"rows": len(plan.rows_N)}
    catalog, markers = tiny_catalog(), ThoughtMarkers(END, BEGIN)
    asked = (catalog, questions(catalog, 5), ThoughtConfig(3, 2.0), markers, 1)
    scores = thought_scores_over_ranks(engine, engine.replica(models[0]), *asked)
    return {**found, "greedy": scores.greedy_N.tolist(), "logprob": scores.logprob_N.tolist()}


def collectives(engine: Engine) -> dict[str, Any]:
    """Everything small, on values that differ by rank."""
    rank = engine.rank
    found: dict[str, Any] = {
        "gather": [
            engine.gather(torch.tensor([[rank, 7]])).tolist(),
            engine.gather(torch.tensor([rank == 0, True])).tolist(),
            engine.gather(torch.tensor([[rank + 0.5]])).tolist(),
        ],
        "all_sum": engine.all_sum(rank + 1, 0.25),
        "mean": [engine.mean(float("nan") if rank else 3.0, 1 - rank), engine.mean(rank, 1 + 2 * rank)],
        "main": engine.on_main(lambda: {"by": rank, "text": "ä"}),
        "share": [engine.share(4).start, engine.share(4).stop],
        "errors": {},
    }

    def full_disk() -> None:
        raise OSError("no space left")

    def differing_start() -> None:
        engine.prepare(tiny_model(tiny_catalog(), seed=rank))

    def not_finite() -> None:
        training = Training(engine, "grpo")
        before = [weight.detach().clone() for weight in training.model.parameters()]
        output = training.model(packed_logprobs, tiny_prompts(tiny_catalog(), 1), torch.tensor([0]), torch.tensor([0]))
        try:
            engine.descend(training.model, output.sum() * (torch.inf if rank else 1.0), training.optimiser)
        finally:
            found["kept"] = all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))

    def not_fitting() -> None:
        engine.load(State({"lm.other": torch.zeros(1)}), Training(engine, "grpo").model)

    checks: dict[str, Callable[[], object]] = {
        "uneven": lambda: engine.share(5),
        "full disk": lambda: engine.on_main(full_disk),
        "differing start": differing_start,
        "not finite": not_finite,
        "not fitting": not_fitting,
    }
    for name, check in checks.items():
        try:
            check()
        except (TrainError, ValueError, OSError) as error:
            found["errors"][name] = f"{type(error).__name__}: {error}"
    return found


def half_precision(engine: Engine) -> list[float]:
    """Losses of supervised steps on one row a prompt."""
    prompts, share = tiny_prompts(tiny_catalog(), P), engine.share(P)
    own = PromptTokens(prompts.tokens_PT[share], prompts.real_PT[share])
    model, losses = engine.prepare(tiny_model(tiny_catalog(), scale=3.0)), []
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(12):
        output = model(packed_logprobs, own, torch.arange(len(own.tokens_PT)), torch.arange(P)[share])
        losses.append(engine.descend(model, -output.sum() / P, optimiser, 1.0)[0])
    assert all(weight.dtype == torch.float32 for weight in model.parameters())
    return losses


def stopped(folder: Path) -> None:
    """The second rank raises while the first goes on; each leaves the message with which it ends."""
    rank = int(os.environ["RANK"])
    if rank == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, as soon as it sees the other rank end
    try:
        with Engine(EngineConfig("fsdp2")) as engine:
            training = Training(engine, "grpo").run(1, 1)
            if rank == 1:
                raise TrainError("loss: the second rank has had enough")
            training.run(2, STEPS)
    except TrainError as error:
        (folder / f"raises-{rank}.json").write_text(json.dumps(str(error)))
        sys.exit(1)


def main(folder: Path, check: str) -> None:
    gc.freeze()  # each prepared model collects garbage, and the imports are most of what there is to look through
    if check == "raises":
        stopped(folder)
    found: dict[str, Any] = {}
    for strategy in ("ddp", "fsdp2"):
        with Engine(EngineConfig(strategy)) as engine:
            rank = engine.rank
            found[strategy] = {
                **train(engine, folder, strategy),
                "collectives": collectives(engine),
                "limited": limited(engine, 32),
                "thinking": thinking(engine),
            }
        with Engine(EngineConfig(strategy, "bf16")) as engine:
            found[strategy]["bf16"] = half_precision(engine)
    (folder / f"{check}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
