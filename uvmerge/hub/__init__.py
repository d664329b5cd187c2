"""References to checkpoints, on this disk or on the Hugging Face Hub."""
