"""One folder, whole or not there: where it may lie, how it grows, what it says about itself."""
