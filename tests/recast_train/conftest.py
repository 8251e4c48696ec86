"""The real ML-100K, and an engine of one process, for the tests that need them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recast_train.data import DataError, fetch_ml100k
from recast_train.engine import Engine, EngineConfig


@pytest.fixture(scope="session")
def ml100k_folder() -> Path:
    try:
        return fetch_ml100k()
    except DataError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"ML-100K cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One process. Of a module, not of the session: a later engine in the process ends this one."""
    with Engine(EngineConfig()) as engine:
        yield engine
