"""Run models of transformers. Code that a checkpoint brings is never run."""
