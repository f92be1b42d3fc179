"""The figures of a report, one a file, drawn by matplotlib in the style of ``report.mplstyle``."""
