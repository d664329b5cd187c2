"""Load models by transformers and run them; Python code in a checkpoint is never run."""
