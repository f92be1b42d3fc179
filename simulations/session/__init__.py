"""A run: asking clients, taking down what was measured, proving what was forgotten."""
