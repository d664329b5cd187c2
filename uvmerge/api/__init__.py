"""One file for each Python call, `uvmerge.X(…)`; the commands in `cli/` call these functions."""
