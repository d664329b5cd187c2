"""Recipes: steps with options, and their YAML."""
