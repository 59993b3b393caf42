"""The training loop, and the two tasks that it trains: supervised training and distillation."""
