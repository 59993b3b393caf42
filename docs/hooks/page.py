"""MkDocs hook: the web page of the bundled model becomes a file of the site, `examples/map.html`.

The line `<!-- page -->` of `deploy.md` becomes the link to it. The page is made when the site is built, and is not in
the repository.
"""

from typing import Any

from mkdocs.structure.files import File

from skystill.model.bundled import bundled_model
from skystill.predict.web.export import make_page
from skystill.predict.web.models import open_model
from skystill.predict.web.parts import find_built

PAGE = "deploy.md"
MARK = "<!-- page -->"
EXAMPLE = "examples/map.html"
LINK = f"**Try it: [the page of the bundled model]({EXAMPLE})** (5.7 MB), which learnt from satellite images of Dubai."


def on_files(files: Any, *, config: Any) -> Any:  # noqa: ANN401 - MkDocs' own types
    """Called by MkDocs with the files of the site."""
    content = make_page([open_model(bundled_model(), "dubai")], find_built())
    files.append(File.generated(config, EXAMPLE, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Called by MkDocs with the source of each page."""
    if page.file.src_uri != PAGE:
        return markdown
    if MARK not in markdown:
        raise ValueError(f"{PAGE} has no line {MARK}; the link to the example goes there.")
    return markdown.replace(MARK, LINK)
