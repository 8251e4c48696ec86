"""`recast-sim train`: one constructor in one world."""

import copy
from dataclasses import asdict, dataclass, field

import torch

from recast_sim.cli.shared import folder
from recast_sim.commandline import Common, Flag, OptionalFile, progress
from recast_sim.configio import Checked
from recast_sim.field_types import Convergence
from recast_sim.runs import RunWriter, read_run
from recast_sim.training.loop import train
from recast_sim.training.training_config import TrainingConfig
from recast_sim.world.environment import EnvironmentConfig, make_environment
from recast_sim.world.learning import Start
from recast_sim.world.policy import PolicyConfig
from recast_sim.world.pretraining import train_base


@dataclass(frozen=True)
class RunConfig(Checked):
    """A single run: a world, a base policy and a training run. The keys of a `recast-sim train` file.

    Attributes:
        environment, policy: the world and the policy's capacity.
        convergence: of the base policy: 1 is the early-stopped optimum, below 1 under-trained.
        training: the loop.
    """

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    convergence: Convergence = 1.0
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """One constructor in one world, from a TOML file and options.

    Attributes:
        file: TOML file with the keys of the options; options override it.
        resume: go on with the run in --out at its last checkpoint.
    """

    file: OptionalFile = None
    config: RunConfig
    resume: Flag = False


def train_one(command: Train) -> None:
    from recast_analysis.reports.training import report as training_report
    from recast_analysis.terminal import finish

    torch.set_num_threads(1)  # tensors this small only lose by more
    config = command.config
    root = folder(command, f"train-{config.training.constructor}")
    environment = make_environment(config.environment, command.seed)
    base = train_base(environment, config.policy, config.convergence, command.seed).policy
    policy = copy.deepcopy(base)
    writer = RunWriter.open(root, "simulation", asdict(config), command.seed, command.resume)
    with progress() as report:
        steps = config.training.steps
        start = Start(base, environment)
        train(policy, start, config.training, command.seed, writer, lambda step: report("training", step, steps))
    writer.close()
    found = training_report(root)
    (figure,) = found.save_figures(root)
    done = read_run(root)
    final = {**done.steps.tail(1).to_dicts()[0], **done.evals.tail(1).to_dicts()[0], "run": str(root), "figure": figure}
    finish(command, final, found, f"recast-report html {root}")
