"""The figures of a report, one a file, drawn as SVG by `chart`."""
