"""Requests that a page of another site makes in the browser of a user, who knows nothing of it."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from skystill.errors import shortened, visible
from skystill.serve.problems import Problem


def check_origin(headers: Headers) -> None:
    """Check that a request comes from the page of the service, or from no page at all.

    A browser says so in Sec-Fetch-Site, which no page can change, and which holds behind a proxy as well. Over plain
    HTTP from another computer it gives the Origin only. Programs send neither.

    Args:
        headers: those of the request.

    Raises:
        Problem: it comes from a page of another site.
    """
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    if site is None and origin is not None:
        site = "same-origin" if _host(origin) == headers.get("host", "").lower() else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise Problem(
            403, f"The request comes from a page of another site ({shortened(visible(origin or site), 100)}); only the "
            "page of the service and programs outside of a browser may send images. Behind a proxy, let it pass on the "
            "header Host.",
        )  # fmt: skip


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
