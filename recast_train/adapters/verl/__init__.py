"""verl >= 0.9 (V1 trainer): advantage estimators, a sampler that keeps a plan's rows, a reward function, an exporter.

`plugin` is the entry point that verl loads; `estimators`, `plugin` and `sampler` alone import verl. docs/verl.md says how
to use them.
"""
