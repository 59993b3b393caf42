"""These tests run with `make test-old-runtime` (README.md), and are passed over elsewhere."""

import os

collect_ignore_glob = [] if "OLD_RUNTIME_PYTHON" in os.environ else ["test_*.py"]
