"""Which device a run takes, and its name in words."""

from typing import Literal

import torch

from recast_train.model import require

Device = Literal["auto", "cpu", "cuda"]


def chosen_device(device: str) -> Literal["cpu", "cuda"]:
    """ "cuda" or "cpu": "auto" is the GPU where there is one, else the CPU.

    Raises:
        TrainError: another name, or "cuda" where there is none.
    """
    require(device in ("auto", "cpu", "cuda"), "device", device, "must be 'auto', 'cpu' or 'cuda'")
    there = torch.cuda.is_available()
    require(device != "cuda" or there, "device", device, "is not available here; use 'auto' or 'cpu'")
    return "cuda" if there and device != "cpu" else "cpu"


def device_words(device: str) -> str:
    """What `chosen_device` takes, for a person: the card's name, and how many of them this machine has."""
    if chosen_device(device) == "cpu":
        return "cpu" + ("; no GPU was found" if device == "auto" else "")
    count = torch.cuda.device_count()
    return f"cuda, {torch.cuda.get_device_name()}" + (f", {count} on this machine" if count > 1 else "")
