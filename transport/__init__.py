"""What crosses the cut: messages, the link, its frames, and the ledger that counts every byte."""
