"""Rotation-preserving fine-tuning: the leading directions of a base as a penalty while training."""
