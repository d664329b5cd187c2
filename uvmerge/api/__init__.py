"""One file per call: what `uvmerge.X(…)` does, phase by phase; `cli/` has the same names around them."""
