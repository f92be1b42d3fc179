"""Flower, started for one run, and ended with all that it started."""
