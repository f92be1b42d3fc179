"""The tables of a report, one a file; a row is the mean of cells with different seeds."""
