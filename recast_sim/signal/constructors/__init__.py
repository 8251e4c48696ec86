"""The shipped constructors; importing a module registers what it holds."""

from recast_sim.signal.constructors import ours as _ours
from recast_sim.signal.constructors import papers as _papers

__all__ = ["_ours", "_papers"]
