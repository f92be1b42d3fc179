"""What clients do so that the server does not read their labels."""
