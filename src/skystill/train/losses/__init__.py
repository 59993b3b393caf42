"""Loss functions that compare a network with labels, with a teacher's logits, or with a teacher's features."""
