"""Training batches as a pure function of (seed, epoch, step)."""
