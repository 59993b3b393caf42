"""Teachers of many kinds: how the value of `--teacher` is read, loaded and run, and how logits are cached."""
