"""Teachers from anywhere: what is written after `--teacher`, loaded, run, and cached."""
