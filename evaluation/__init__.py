"""What can be measured of a run: what a server finds out, and what outputs tell of forgetting."""
