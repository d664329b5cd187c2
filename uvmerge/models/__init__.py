"""Load models of transformers and run them. Code that a checkpoint brings is never run."""
