"""The real ML-100K, for the tests that need it."""

import os
from pathlib import Path

import pytest

from recast_train.data import DataError, fetch_ml100k


@pytest.fixture(scope="session")
def ml100k_folder() -> Path:
    try:
        return fetch_ml100k()
    except DataError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"ML-100K cannot be fetched here: {error}")
