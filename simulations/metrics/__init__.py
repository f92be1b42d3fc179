"""What a server can find out from what it received: attacks, and how they are scored."""
