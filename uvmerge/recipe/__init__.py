"""What is asked for: steps with options, and their YAML."""
