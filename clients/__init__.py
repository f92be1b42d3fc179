"""The client's side: one Flower NumPyClient per protocol."""
