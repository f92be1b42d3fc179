"""The command line: its commands, one a file, and what they share.

What needs torch, scikit-learn or rich is imported by the command that uses it: asking for help, or
mistyping an option, is answered at once.
"""
