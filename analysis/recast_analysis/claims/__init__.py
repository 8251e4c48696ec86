"""The twelve claims of arXiv 2604.22169 against what was measured here: in the simulator, in real runs, in benchmarks."""

from recast_analysis.claims.claims_page import claims_page, read_evidence

__all__ = ["claims_page", "read_evidence"]
