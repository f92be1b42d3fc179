"""One table in four formats."""
