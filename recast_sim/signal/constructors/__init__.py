"""The shipped constructors; importing a module registers what it holds."""

from recast_sim.signal.constructors import level_wise as _level_wise
from recast_sim.signal.constructors import ours as _ours
from recast_sim.signal.constructors import papers as _papers
from recast_sim.signal.constructors import recent as _recent

__all__ = ["_level_wise", "_ours", "_papers", "_recent"]
