"""What the SplitWiper paper published, and how the cells of a benchmark compare with it."""
