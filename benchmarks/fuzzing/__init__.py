"""Damaged files for every parser: how they are made, and what has to become of them."""
