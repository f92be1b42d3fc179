"""Label privacy: the clients' means against a server that would read their labels."""
