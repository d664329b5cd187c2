"""Every family of transformers, built small, and what is known and read of it."""
