"""Questions with an exact judge, their tasks for lm-evaluation-harness, and statistics of answers."""
