"""The temperature at which a mean entropy is a given one, however it is computed. Loads no torch."""

import math
from collections.abc import Callable

from scipy.optimize import root_scalar

WIDEST = math.log(1e3)  # of log temperature: beyond it a distribution is flat or a point


def matching_temperature(entropy: float, entropy_at: Callable[[float], float], tolerance: float = 1e-9) -> float:
    """The T at which `entropy_at` is `entropy`, within 1e-3 .. 1e3; `tolerance` is that of log T."""

    def excess(log_temperature: float) -> float:
        return entropy_at(math.exp(log_temperature)) - entropy

    if (now := excess(0.0)) == 0:
        return 1.0
    end = -WIDEST if now > 0 else WIDEST
    if excess(end) * now >= 0:  # out of reach
        return math.exp(end)
    return math.exp(root_scalar(excess, bracket=sorted((0.0, end)), xtol=tolerance).root)
