"""`recast-train fetch`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recast_sim.commandline import Positional, Printing
from recast_train.data import DataError, fetch_ml100k, fetch_yoochoose


@dataclass(frozen=True)
class Fetch(Printing):
    """Put a data set into the cache, each file checked by its sha256.

    Attributes:
        dataset: its name.
        out: the cache folder; default $RECAST_CACHE, else ~/.cache/recast.
        wheel: of ml-100k, a local recbole wheel, for machines without pip or network.
        parts: of yoochoose-100k, a folder with its two files, for machines without network.
    """

    dataset: Positional[Literal["ml-100k", "yoochoose-100k"]] = "ml-100k"
    out: Path | None = None
    wheel: Path | None = None
    parts: Path | None = None


def fetch(command: Fetch) -> None:
    of_clicks = command.dataset == "yoochoose-100k"
    for name, unused in (("wheel", of_clicks), ("parts", not of_clicks)):
        if unused and (value := getattr(command, name)) is not None:
            raise DataError(f"--{name}: {value} has no effect on {command.dataset}; leave it out")
    folder = fetch_yoochoose(command.out, command.parts) if of_clicks else fetch_ml100k(command.out, command.wheel)
    print(json.dumps({"folder": str(folder)}) if command.json else folder)
