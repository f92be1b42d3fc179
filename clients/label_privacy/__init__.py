"""What SplitWiper+ does to labels and smashed data before they leave a client (Algorithm 4)."""
