"""Gradient projection: a cache of every step, and what forgotten samples did, taken out again."""
