"""The published figures of the SplitWiper paper, and how a benchmark compares with them."""
