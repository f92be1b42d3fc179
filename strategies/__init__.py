"""The server's side: one Flower strategy per protocol, and the server segment they train."""
