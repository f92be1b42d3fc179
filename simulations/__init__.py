"""Flower apps, run configuration, data and its distribution, measurement, report, command line."""
