"""What schemathesis sends as an image: images, mostly. Its own bytes are none."""

import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.serve.images import png

IMAGES = st.one_of(st.just(png()), st.just(png(9, 300)), st.binary(max_size=64), st.just(png()[:-40]))

for media_type in ("image/png", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, IMAGES)


if os.environ.get("SKYSTILL_TEST_PLAIN"):

    @schemathesis.hook
    def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
        """Nine parameters at random fit no image together: these requests have only the form of the result."""
        return {name: value for name, value in query.items() if name == "f"} if query else query
