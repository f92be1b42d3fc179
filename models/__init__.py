"""Networks as segments: where a model is cut, how it is built by name, how a segment is trained."""
