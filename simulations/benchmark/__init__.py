"""Many runs as one: a grid of cells, carried out under one start of Ray, and what they measured."""
