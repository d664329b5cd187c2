"""Settings for the whole suite: one thread per process, no network, no leftovers of the caller."""

from __future__ import annotations

import os

# Before torch or huggingface_hub are imported, here and in the processes that tests start.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.pop("UVMERGE_DEBUG", None)
