"""The server segment: parts with frames, calls and kept state of their own, and where they run."""
