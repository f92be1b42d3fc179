"""How to forget: requests, and what makes retraining exact. Knows neither Flower nor Ray."""
