"""The one training loop, and the two tasks that it trains."""
