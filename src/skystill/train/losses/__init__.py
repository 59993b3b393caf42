"""Losses against labels, against a teacher's logits, and against a teacher's features."""
