"""Training batches, which are a pure function of (seed, epoch, step)."""
