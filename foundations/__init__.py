"""What every room stands on: errors, named things, settings; knows nothing of learning."""
