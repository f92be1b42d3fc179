"""What the commands are made of: arguments, lists, progress, Flower's processes."""
