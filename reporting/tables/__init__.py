"""The tables of a report, one a file; a row is what cells with different seeds have in common."""
