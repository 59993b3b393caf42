"""From a trained network to a small model file: export, formats, INT8-aware fine-tuning, budgets and pruning."""
