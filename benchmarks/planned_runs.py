"""How often studies of trained policies find a difference that `recast-report plan` planned for: 80 % is promised.

    PYTHONPATH=analysis python benchmarks/planned_runs.py [--studies 200] [--seeds 30] [--json]

grpo and repair_only are trained in one small synthetic world with many seeds. The planner gets the rollouts of one run's last
quarter, the weaker method's hit rate on held-out prompts, the effect and the seeds' scatter that all seeds together show. Each
study then takes S seeds and the planned number of held-out prompts by lot, and is judged by the two-way interval: of one draw a
prompt, and of the greedy item, whose hits hardly change with the seed.
"""

import argparse
import copy
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recast_analysis.measures.two_way import two_way_interval
from recast_analysis.planner.hit_rates import Estimate, HitRates, hit_rates
from recast_analysis.planner.prompt_hits import PromptHits
from recast_analysis.planner.study_size import Scatter, StudyPlan, study
from recast_sim.experiments.protocol import EvaluationLog
from recast_sim.training.loop import train
from recast_sim.training.training_config import TrainingConfig
from recast_sim.world.environment import EnvironmentConfig, make_environment
from recast_sim.world.evaluation import leaf_logprobs, reward_probability
from recast_sim.world.learning import Start
from recast_sim.world.policy import PolicyConfig
from recast_sim.world.pretraining import train_base

METHODS = ("grpo", "repair_only")
WORLD = EnvironmentConfig(items=200, sizes=(6, 6, 6), dim=8, beta=4.0, train_prompts=2048, heldout_prompts=6000)
STEPS, GROUP = 40, 16
MOST_PROMPTS = 100_000
SEEDS = (1, 5, 10)
Floats = NDArray[np.float64]


class Groups(EvaluationLog):
    """A log that keeps hits of the last quarter of the steps by prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.hits, self.drawn = np.zeros(WORLD.train_prompts, dtype=np.int64), np.zeros(WORLD.train_prompts, dtype=np.int64)

    def groups(self, columns: Mapping[str, Any]) -> None:
        if columns["step"][0] > STEPS - STEPS // 4:
            np.add.at(self.hits, columns["prompt"], columns["hits"])
            np.add.at(self.drawn, columns["prompt"], columns["valid"])

    def log(self) -> PromptHits:
        seen = self.drawn > 0
        hits_P, rows_P = self.hits[seen], self.drawn[seen]
        return PromptHits(np.flatnonzero(seen), hits_P, rows_P, GROUP, None, None, None, None, "last quarter", [])


def trained(seeds: int) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, HitRates]]:
    """By method: chances of a hit of each held-out prompt, greedy hits, both (S, P), and hit rates from the first run's log."""
    environment = make_environment(WORLD, seed=0)
    base = train_base(environment, PolicyConfig(), 0.7, seed=0).policy
    start = Start(base, environment)
    chance, greedy, rates = {}, {}, {}
    for method in METHODS:
        config = TrainingConfig(constructor=method, group_size=GROUP, steps=STEPS, learning_rate=0.01, evaluate_every=STEPS)
        chances, hits = [], []
        for seed in range(seeds):
            policy, log = copy.deepcopy(base), Groups()
            train(policy, start, config, seed, log, learning=False)
            with torch.no_grad():
                chances.append(reward_probability(policy, environment.heldout).double().numpy())
                best_P = leaf_logprobs(policy, environment.heldout.x_ND).argmax(1)
            hits.append((best_P == environment.heldout.target_NT[:, 0]).double().numpy())
            rates.setdefault(method, hit_rates(log.log()))
        chance[method], greedy[method] = np.array(chances), np.array(hits)
    return chance, greedy, rates


def planned(of: Mapping[str, Floats], rates: Mapping[str, HitRates]) -> tuple[str, str, StudyPlan]:
    """The weaker and the better method, and the plan for the difference that all seeds show."""
    weak, better = sorted(METHODS, key=lambda method: of[method].mean())
    base, difference_S = float(of[weak].mean()), of[better].mean(1) - of[weak].mean(1)
    share = float(difference_S.std(ddof=1)) / base
    scatter = Scatter(Estimate(share, share, share), "all seeds")
    found = study(rates[weak], float(difference_S.mean()) / base, base, scatter)
    assert not isinstance(found, str), found
    return weak, better, found


def share_found(better_SP: Floats, weak_SP: Floats, seeds: int, prompts: int, studies: int, seed: int) -> float:
    """Of studies with so many seeds and prompts; entries are chances of a hit, drawn once each."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(studies):
        of_S = rng.choice(len(better_SP), seeds, replace=False)[:, None]
        of_P = rng.choice(better_SP.shape[1], prompts)
        ours, theirs = (rng.random((seeds, prompts)) < chance[of_S, of_P] for chance in (better_SP, weak_SP))
        interval = two_way_interval(ours.astype(np.float64) - theirs)
        found += interval.p is not None and interval.p < 0.05 and interval.value > 0
    return found / studies


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.seeds < max(SEEDS):
        parser.error(f"--seeds: {given.seeds} is fewer than a study draws; give {max(SEEDS)} or more")
    chance, greedy, rates = trained(given.seeds)
    result = []
    for metric, of in (("sampled", chance), ("greedy", greedy)):
        weak, better, found = planned(of, rates)
        for row in (row for row in found.rows if row.seeds in SEEDS):
            needed = (found.rows[0] if metric == "greedy" else row).prompts.value or np.inf  # of greedy hits one seed's
            prompts = int(min(needed, MOST_PROMPTS))
            share = share_found(of[better], of[weak], row.seeds, prompts, given.studies, row.seeds)
            figures = {"effect": found.effect, "seeds": row.seeds, "prompts": prompts, "found": share}
            result.append({"metric": metric, "better": better} | figures)
    if given.json:
        print(json.dumps(result))
        return
    for row in result:
        print(
            f"{row['metric']:8} {row['better']} by {100 * row['effect']:.1f} %, {row['seeds']:2} seeds, "
            f"{row['prompts']:6,} prompts: {100 * row['found']:.1f} % of {given.studies} studies found it"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
