"""The steps that constructors are composed of: repair, advantage, support. Each takes a `GroupState` and returns one."""
