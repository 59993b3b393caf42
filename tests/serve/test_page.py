"""The page of the service, as a browser gets it and runs it."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from skystill.classes import ClassMap
from skystill.serve.page import page
from tests.serve.images import png
from tests.serve.serving import Serving
from tests.web.browser import Browser, open_browser

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("text/html;q=0.1,application/json", "json"),
    ],
)
def test_browsers_get_the_page_and_programs_get_links(accept: str, kind: str, service: Serving) -> None:
    assert kind in service.client.get("/", headers={"Accept": accept}).headers["content-type"]


def test_the_policy_lets_only_its_own_script_run(service: Serving) -> None:
    answer = service.client.get("/", headers={"Accept": BROWSER})
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert "http:" not in answer.text
    assert "https:" not in answer.text


def test_names_of_classes_are_text() -> None:
    assert "&lt;b&gt;" in page(ClassMap(("<b>", "other"), ((1, 2, 3), (4, 5, 6))))


def test_in_a_browser(service: Serving, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    (tmp_path / "no.png").write_bytes(b"no image")
    with open_browser(tmp_path) as browser:
        browser.open(f"{service.url}/")
        assert browser.label(tmp_path / "photo.png") == "done"
        shown = (
            "(async () => { const i = document.getElementById('result'); await i.decode(); return i.naturalWidth; })()"
        )
        assert browser.run(shown) == 80
        assert browser.label(tmp_path / "no.png") == "refused"
        assert "begins as none" in browser.status
        check_other_answers(browser, tmp_path / "photo.png")


def check_other_answers(browser: Browser, photo: Path) -> None:
    """The same image in a second form, an answer of a proxy, and one that comes after that of a later send."""
    choose = "form.value = '{}'; form.dispatchEvent(new Event('change')); 1"
    assert browser.label(photo) == "done"
    browser.run("URL.createObjectURL = (blob) => { globalThis.kind = blob.type; return 'blob:x'; }; 1")
    browser.run(choose.format("geojson"))
    assert browser.wait("done", "refused") == "done"
    assert browser.run("kind") == "application/geo+json"
    assert browser.run("input.dispatchEvent(new Event('click')); input.files.length") == 0  # it may be chosen again
    browser.run("var answers = []; fetch = () => new Promise((answer) => answers.push(answer)); 1")
    browser.run(choose.format("png"))
    browser.run(choose.format("tif"))
    browser.run("answers[1](new Response('<h1>Bad</h1>', { status: 502, statusText: 'Bad Gateway' })); 1")
    assert browser.wait("done", "refused") == "refused"
    assert browser.status == "photo.png: the answer was 502 Bad Gateway."
    browser.run("answers[0](new Response('', { status: 200 })); new Promise((later) => setTimeout(later, 300))")
    assert browser.wait("done", "refused") == "refused"
    assert browser.status == "photo.png: the answer was 502 Bad Gateway."
