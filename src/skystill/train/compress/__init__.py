"""From a trained network to a small file: export, formats, INT8-aware fine-tuning, budgets, pruning."""
