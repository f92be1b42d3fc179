"""Who holds which samples: ways to deal a data set out to clients."""
