"""Tests run beside each other on few cores: one thread each, here and in the subprocesses that tests start."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.pop("COLUMNS", None)  # tables would be cut to the width of whatever terminal the tests are started from
os.unsetenv("COLUMNS")  # readline, which pytest imports, sets it behind os.environ's back, and subprocesses have it

import torch

torch.set_num_threads(1)
