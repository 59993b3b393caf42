"""What the pages say is there: links, headings, files, commands, options, Python names."""

import importlib
import importlib.util
import inspect
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
import typer

from skystill.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(path for room in ("docs", "src", "tests") for path in (ROOT / room).rglob("*.md"))]
)
SOURCES = sorted(path for room in ("src", "benchmarks", "tests", "docs") for path in (ROOT / room).rglob("*.py"))
SOURCES.remove(Path(__file__))  # it names files that are not there, on purpose
GENERATED = DOCS / "reference/commands.md"

each_page = pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])


def test_there_are_pages_to_check() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md", "docs/results/keras.md"} <= names


@cache
def hook() -> ModuleType:
    """docs/hooks/commands.py, which writes the reference of the commands when the site is built."""
    spec = importlib.util.spec_from_file_location("commands_hook", DOCS / "hooks/commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def text_of(page: Path) -> str:
    """The Markdown of a page as the site shows it."""
    text = page.read_text(encoding="utf-8")
    if page == GENERATED:
        place = SimpleNamespace(file=SimpleNamespace(src_uri="reference/commands.md"))
        text = str(hook().on_page_markdown(text, page=place))
    return text


def without_code(text: str) -> str:
    """The prose: without fenced and indented blocks and code spans."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<=\n\n)(?: {4}.*\n)+", "", text)
    return re.sub(r"`[^`\n]+`", "`code`", text)


# ---- links and headings


def slug(heading: str) -> str:
    """The anchor of a heading as Python-Markdown's `toc`, and so MkDocs, makes it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@cache
def anchors(page: Path) -> frozenset[str]:
    """All anchors of a page: headings, ids in HTML, and on the Python reference the objects it shows."""
    text = re.sub(r"^(```|~~~).*?^\1\s*$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    times: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        own = re.search(r"\{ *#([\w-]+) *\}$", heading)
        name = own[1] if own else slug(re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        found.append(f"{name}_{times[name]}" if times[name] else name)
        times[name] += 1
    found += re.findall(r"""<\w+[^>]*\s(?:id|name)=["']([^"']+)["']""", text)
    found += re.findall(r"^::: *([\w.]+)", text, re.MULTILINE)
    return frozenset(found)


def test_anchors_are_made_as_mkdocs_makes_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# INT8: 3 to 5 times *faster* (AVX-512)\n## The `kite`'s [table](x.md)\n## Again\n## Again\n"
        "## Über die Höhe\n### Mine { #own }\n```\n# no heading\n```\n<a id='old'></a>\n"
    )
    assert anchors(page) == {
        "int8-3-to-5-times-faster-avx-512", "the-kites-table", "again", "again_1", "uber-die-hohe", "own", "old",
    }  # fmt: skip


def links(page: Path) -> list[str]:
    """Relative links and pictures of a page."""
    text = without_code(text_of(page))
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    found += re.findall(r"""\s(?:src|srcset|href)=["']([^"']+)["']""", text)
    return [link for link in found if not re.match(r"[a-z][a-z0-9+.-]*:|//", link)]


def dead(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    found = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.resolve()):
            found.append(f"{link}: no such heading")
    return found


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    assert dead(page) == []


@pytest.mark.parametrize("page", [page for page in PAGES if DOCS in page.parents], ids=lambda page: page.name)
def test_pages_of_the_site_link_within_the_site(page: Path) -> None:
    """MkDocs copies docs/ and nothing else."""
    targets = [link for link in links(page) if not link.startswith("#")]
    assert [link for link in targets if DOCS not in (page.parent / link.split("#")[0]).resolve().parents] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# Here\n")
    page.write_text(
        "# Top\n[a](other.md) [b](other.md#here) [c](#top) [d](https://x.org/y#z) ![p](no.png) [e](other.md#there)\n"
        "[f](gone.md \"title\") [g](#nothing) <img src='gone.png'> `[h](code.md)`\n\n"
        "    [i](code.md)\n\n[j]: gone2.md\n"
    )
    assert dead(page) == [
        "no.png: no such file", "other.md#there: no such heading", "gone.md: no such file",
        "#nothing: no such heading", "gone2.md: no such file", "gone.png: no such file",
    ]  # fmt: skip


def test_every_page_is_in_the_menu_of_the_site_and_the_menu_names_no_other() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2].partition("\n\n")[0]
    named = re.findall(r": (\S+\.md)$", menu, re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents)


# ---- files that are named


def named_files(path: Path) -> set[str]:
    """Paths below docs, benchmarks, tests, notebooks and src that a file names, as they begin at the project's root."""
    pattern = r"(?<![\w./-])(?:docs|benchmarks|tests|notebooks|src)/[\w./-]*[\w/]"
    return set(re.findall(pattern, path.read_text(encoding="utf-8")))


def test_files_that_are_named_exist() -> None:
    named = [(str(path.relative_to(ROOT)), name) for path in (*SOURCES, *PAGES) for name in named_files(path)]
    assert len(named) > 50
    assert sorted(f"{path}: {name}" for path, name in named if not (ROOT / name).exists()) == []


def test_files_are_found_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# see docs/log.md. Or: `benchmarks/no.py`, runs/docs/x.md (docs/none/here.md#a)")
    assert named_files(tmp_path / "a.py") == {"docs/log.md", "benchmarks/no.py", "docs/none/here.md"}


# ---- commands that are written out


@cache
def commands() -> dict[str, click.Command]:
    """The commands of the command line by name, such as "data check"; "" is `skystill` itself."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        for child, below in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {child}".strip(), below)

    return dict(walk("", typer.main.get_command(app)))


def command_lines(text: str) -> list[str]:
    """Code of a page that runs skystill: lines of code blocks, and code spans; what follows `skystill`."""
    blocks = [block for _, block in re.findall(r"^(```|~~~)[^\n]*\n(.*?)^\1\s*$", text, re.MULTILINE | re.DOTALL)]
    prose = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^ {4,}.*\n?)+", prose, re.MULTILINE)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    lines = [re.sub(r"\s#\s.*", "", line) for line in lines]
    # not skystill.api, "skystill[train]", `from skystill import ...`, or `pip install skystill` with more behind it
    found = [re.search(r"(?:^|[\s/])(?<!install )(?<!from )skystill\s+(.+)$", line) for line in lines]
    return [line[1] for line in found if line]


def wrong_words(line: str) -> list[str]:
    """What of a command line there is not: the command, or options."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark of the prose
        words = line.split()
    if words[0].startswith("-"):
        command, name = commands()[""], ""
    elif words[0].isupper():  # skystill COMMAND --help
        return [word for word in words[1:] if word != "--help"]
    else:
        name = words[0] if words[0] != "data" else " ".join(words[:2])
        if name not in commands():
            return [name]
        command = commands()[name]
    known = {"--help", *(flag for one in command.params for flag in (*one.opts, *one.secondary_opts))}
    given = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
    if name == "":  # skystill --debug COMMAND
        given = given[:1]
    return [f"{name} {flag}" for flag in given if flag not in known]


@each_page
def test_commands_and_options_are_those_of_the_command_line(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [wrong for line in command_lines(text) for wrong in wrong_words(line)] == []


def test_wrong_commands_and_options_are_found() -> None:
    text = (
        "Run `skystill predict` or `skystill guess x`, `pip install skystill`, `skystill --version`.\n\n"
        "    skystill train --data D --epoch 3   # --no-comment\n"
        "    srun skystill distill \\\n        --data D --teacher-share 2\n\n"
        "```sh\nskystill data check D --split auto\nskystill data look D\npython -m skystill export r --stack\n```\n"
        "`skystill COMMAND --help`, `skystill --debug evaluate r`, `from skystill import x`, `skystill --wrong`\n"
    )
    assert [wrong for line in command_lines(text) for wrong in wrong_words(line)] == [
        "data look", "export --stack", "train --epoch", "distill --teacher-share", "guess", " --wrong",
    ]  # fmt: skip


def test_commands_named_in_messages_and_docstrings_exist() -> None:
    """`skystill WORD` in the sources, where a user reads it in an error or in the help."""
    found = {
        f"{path.relative_to(ROOT)}: skystill {word}"
        for path in (ROOT / "src").rglob("*.py")
        for word in re.findall(r"(?<![\w.\"'-])(?<!from )skystill ([a-z]+)(?![\w.])", path.read_text(encoding="utf-8"))
        if word not in commands()
    }
    assert found == set()


def test_scripts_that_the_pages_run_exist() -> None:
    found = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"python3? (?:-\w )?([\w/]+\.py)", page.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 5
    assert [(page, name) for page, name in found if not (ROOT / name).is_file()] == []


# ---- Python names


def documented(name: str) -> bool:
    """Whether a dotted name of skystill can be imported and has a docstring of its own."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            thing = getattr(thing, attribute, None)
        return bool(inspect.getdoc(thing)) and thing is not None
    return False


def test_the_python_reference_shows_what_is_there() -> None:
    shown = re.findall(r"^::: *([\w.]+)", (DOCS / "reference/python.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) > 20
    assert [name for name in shown if not documented(name)] == []
    assert not documented("skystill.nowhere") and not documented("skystill.predict.Predicter")


def test_imports_in_the_pages_work() -> None:
    found = [
        (page.name, module, name.strip().partition(" as ")[0])
        for page in PAGES
        for module, names in re.findall(
            r"^ *from (skystill[\w.]*) import ([\w, ]+)", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for name in names.split(",")
    ]
    assert found
    assert [one for one in found if not hasattr(importlib.import_module(one[1]), one[2])] == []
