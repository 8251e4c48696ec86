"""`recast-train`: the command line of the real trainer, one module a command."""

import sys

from recast_sim.catalog import CatalogError
from recast_sim.commandline import run_command
from recast_sim.runs import RunError
from recast_sim.runs.sweep import SweepError
from recast_sim.signal import SignalError
from recast_train.cli.data import Data, data
from recast_train.cli.export import Export, export
from recast_train.cli.fetch import Fetch, fetch
from recast_train.cli.run import RunRecipe, run
from recast_train.cli.search import Search, search
from recast_train.cli.study import Study, study
from recast_train.cli.tokenize import Tokenize, tokenize
from recast_train.data import DataError
from recast_train.model import TrainError
from recast_train.semantic_id import SemanticIdError

_ERRORS = (DataError, SemanticIdError, SignalError, CatalogError, TrainError, SweepError, RunError, OSError)
_COMMANDS = {
    "data": (Data, data),
    "export": (Export, export),
    "fetch": (Fetch, fetch),
    "run": (RunRecipe, run),
    "search": (Search, search),
    "study": (Study, study),
    "tokenize": (Tokenize, tokenize),
}


def main() -> None:
    about = "Generative recommenders on real data, trained with the signal module of the laboratory."
    sys.exit(run_command("recast-train", about, _COMMANDS, _ERRORS))


if __name__ == "__main__":
    main()
