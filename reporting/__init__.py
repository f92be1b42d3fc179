"""From the folder of a benchmark to tables and figures that people can read."""
