"""`recast-sim`: the laboratory's command line, one module a command."""

import sys

from recast_sim.catalog import CatalogError
from recast_sim.cli.budget import Budget, budget
from recast_sim.cli.calibrate import Calibrate, calibrate_world
from recast_sim.cli.check import Check, check
from recast_sim.cli.claims import Claims, claims
from recast_sim.cli.constructors import Constructors, constructors
from recast_sim.cli.gradients import Gradients, compare_gradients
from recast_sim.cli.map import Map, draw_the_map
from recast_sim.cli.plan import Plan, plan
from recast_sim.cli.quickstart import Quickstart, quickstart
from recast_sim.cli.theory import Theory, theory
from recast_sim.cli.train import Train, train_one
from recast_sim.commandline import run_command
from recast_sim.runs import RunError
from recast_sim.runs.sweep import SweepError
from recast_sim.signal import SignalError
from recast_sim.training.plan_update import UpdateError
from recast_sim.training.training_config import TrainingError
from recast_sim.world.calibration import CalibrationError
from recast_sim.world.environment import WorldError
from recast_sim.world.policy import PolicyError

_ERRORS = (
    SignalError,
    CatalogError,
    WorldError,
    PolicyError,
    CalibrationError,
    TrainingError,
    UpdateError,
    SweepError,
    RunError,
    OSError,
)
_COMMANDS = {
    "quickstart": (Quickstart, quickstart),
    "train": (Train, train_one),
    "check": (Check, check),
    "calibrate": (Calibrate, calibrate_world),
    "constructors": (Constructors, constructors),
    "gradients": (Gradients, compare_gradients),
    "theory": (Theory, theory),
    "budget": (Budget, budget),
    "map": (Map, draw_the_map),
    "claims": (Claims, claims),
    "plan": (Plan, plan),
}


def main() -> None:
    about = "The laboratory for learning-signal mechanics of sparse-hit group-based RL."
    sys.exit(run_command("recast-sim", about, _COMMANDS, _ERRORS))
