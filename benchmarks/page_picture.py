"""Picture of the page of `skystill export --format html` in the docs: on a computer, and on a phone in dark mode.

    make demo
    python benchmarks/page_picture.py                         # the student of the demo: docs/images/page.jpg

It needs Chromium or Chrome. The image is the drawn scene that is built into the page; a model of photographs, such as
the bundled one, labels it wrongly.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from skystill.api import export
from skystill.predict.web.browser import Browser, find_browser, open_browser

SIZES = {"computer": (1440, 900, "light"), "phone": (390, 900, "dark")}  # width, height, colours
GAP, WIDTH = 24, 1400  # pixels between both, and of the picture


def main() -> None:
    """Make the page, look at it, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo/student"), help="run or model file")
    parser.add_argument("--out", type=Path, default=Path("docs/images/page.jpg"))
    chosen = parser.parse_args()
    binary = find_browser()
    if binary is None:
        raise SystemExit("This needs Chromium or Chrome.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = export(run=chosen.run, format="html", out=Path(folder) / "page.html")
        with open_browser(binary, Path(folder), patience=300) as browser:
            seen = [look(browser, page, Path(folder) / f"{name}.png", *size) for name, size in SIZES.items()]
    height = max(one.height for one in seen)
    joined = Image.new("RGB", (sum(one.width for one in seen) + GAP, height), "#808890")
    joined.paste(seen[0], (0, 0))
    joined.paste(seen[1], (seen[0].width + GAP, 0))
    joined.resize((WIDTH, round(height * WIDTH / joined.width)), Image.Resampling.LANCZOS).save(chosen.out, quality=85)


def look(browser: Browser, page: Path, path: Path, width: int, height: int, scheme: str) -> Image.Image:
    """Label the example in a window of this size, and return what is seen."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", **screen)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(page)
    browser.click("example")
    if browser.wait("done", "refused") == "refused":
        raise SystemExit(browser.status)
    browser.run("""new Promise((painted) => {
        const look = () => (view.stale.length ? requestAnimationFrame(look) : painted());
        look();
    })""")
    browser.run("view.tell(view.at(view.canvas.width / 2, view.canvas.height / 2)); new Promise(requestAnimationFrame)")
    browser.picture(path)
    with Image.open(path) as seen:
        return seen.convert("RGB")


if __name__ == "__main__":
    main()
