"""The door from Python: what the command line does, as functions of a script or a notebook."""
