"""Metrics, comparisons and reports: accuracy and cost of each model, and whether distillation helped."""
