"""Figures, comparisons and pages: what was kept, what was saved, and whether distillation helped."""
