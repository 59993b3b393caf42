"""The one gate for text files from elsewhere: YAML, JSON and CSV, and JSON inside other files.

A parser can fail in many ways on a file that is damaged or made to do harm. Every one of them becomes an error of
SkyStill that names the file. What passes holds only what a settings file may hold: lists, mappings,
text, finite numbers of at most 64 bits, and true, false and none, nested at most `_MOST_LEVELS` deep, no key twice.
"""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from skystill.errors import UserError, shortened

_T = TypeVar("_T")

MOST_BYTES = 32 * 2**20
"""Most bytes of a JSON file. The lists of images of 100,000 pairs take a fifth of it."""
_MOST_YAML_BYTES = 8 * 2**20  # YAML takes ten times as long as JSON
_MOST_LEVELS = 100
_MOST_ALIASED = 10_000  # values that the aliases of a YAML file may stand for, together
_MOST_YAML_VALUES = 300_000  # a split of 100,000 images holds a third of it; each value takes about 20 microseconds
_MOST_SCALAR = 2**16  # characters of a value in YAML: the time for a number such as 1:59:59 grows with their square
_MOST_JSON_GROUPS = 3_000_000  # lists and mappings; one takes up to 100 times the two bytes that it has in the file
_STRANGE_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9]+_[0-9_]*|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""What YAML 1.1 takes for another number than it looks: 010 is 8, 1_2 is 12, and 1:30 is 90."""
MOST_ROWS = 10**6
"""Most rows of a table. A blank row of one byte takes 60 times as much in memory."""

PARSE_ERRORS = (
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError),
    csv.Error,
    yaml.YAMLError,
)
"""What the parsers, and code that takes their result apart, raise on content that is not what was expected."""


Refuse = Callable[[str], UserError]
"""Makes the error for a file from the reason why it cannot be read: words without a full stop at their end."""


def read_yaml(path: Path, refuse: Refuse) -> Any:  # noqa: ANN401 - what the file holds
    """Read a YAML or JSON file. JSON is a part of YAML.

    Args:
        path: the file.
        refuse: makes the error. Its message should name the file, and say how to mend it.

    Raises:
        UserError: the file cannot be read, is too large, or is not YAML. `refuse` made it.
    """
    return _read(path, _yaml, "YAML or JSON", refuse)


def read_json(path: Path, refuse: Refuse) -> Any:  # noqa: ANN401 - what the file holds
    """Read a JSON file. The arguments and errors are those of `read_yaml`."""
    return _read(path, _json, "JSON", refuse)


def read_csv(path: Path, refuse: Refuse) -> list[list[str]]:
    """Read the rows of a file of comma-separated values. The arguments and errors are those of `read_yaml`."""
    rows: list[list[str]] = _read(path, _csv, "CSV", refuse)
    return rows


def parse_json(text: str) -> Any:  # noqa: ANN401 - what the text says
    """Parse JSON that stands inside another file.

    Raises:
        ValueError: the text is not JSON, or holds more than a file may hold.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has {len(text):,} characters; at most {MOST_BYTES:,} are read")
    try:
        content = _json(text)
        check_plain(content)
    except PARSE_ERRORS as error:
        raise ValueError(_reason(error)) from error
    return content


def built_from(content: object, build: Callable[[Any], _T], refuse: Refuse) -> _T:
    """Return what is built from parsed content, or raise an error if the content is not what was expected.

    Args:
        content: what a parser returned.
        build: takes it apart. It may raise anything in `PARSE_ERRORS`.
        refuse: makes the error from a reason.
    """
    try:
        return build(content)
    except PARSE_ERRORS as error:
        raise refuse(_reason(error)) from error


def _read(path: Path, parse: Callable[[str], Any], form: str, refuse: Refuse) -> Any:  # noqa: ANN401
    try:
        raw = _read_bytes(path)
        most = _MOST_YAML_BYTES if parse is _yaml and not _is_json(raw) else MOST_BYTES
        if len(raw) > most:
            raise ValueError(f"it is larger than {most // 2**20} MB, the most that is read")
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is in UTF-16; save it as UTF-8")
        content = parse(raw.decode("utf-8-sig"))
        check_plain(content)
    except OSError as error:
        raise refuse(f"it cannot be read: {error.strerror or shortened(error)}") from error
    except PARSE_ERRORS as error:
        raise refuse(f"it cannot be read as {form}: {_reason(error)}") from error
    return content


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file, or at least so much of it that it is seen to be too large."""
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder or a device, and no file")
    with open(path, "rb") as file:
        return file.read(MOST_BYTES + 1)


def _is_json(text: bytes | str) -> bool:
    return text.lstrip()[:1] in (b"{", b"[", "{", "[")


def _reason(error: BaseException) -> str:
    """Say in words why content cannot be read, on one line of a bounded length."""
    if isinstance(error, RecursionError):
        return f"it is nested more than {_MOST_LEVELS} deep"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    if isinstance(error, KeyError) and error.args:
        return f"{shortened(error.args[0], 60)} is missing"
    return shortened(error).rstrip(".") or type(error).__name__


def _json(text: str) -> Any:  # noqa: ANN401
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    if text.count("{") + text.count("[") > _MOST_JSON_GROUPS:
        raise ValueError(f"it holds more than {_MOST_JSON_GROUPS:,} lists and mappings, the most that are read")
    return json.loads(text, object_pairs_hook=_without_twins, parse_constant=refuse_constant)


def _csv(text: str) -> list[list[str]]:
    rows = list(itertools.islice(csv.reader(io.StringIO(text, newline=""), strict=True), MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        raise ValueError(f"it has more than {MOST_ROWS:,} rows, the most that are read")
    return rows


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shortened(twice, 60)} stands there twice")
    return found


def _yaml(text: str) -> Any:  # noqa: ANN401
    if _is_json(text):
        try:
            return _json(text)
        except ValueError as error:  # YAML writes lists and mappings like this, too, without quotes
            if len(text) > _MOST_YAML_BYTES or "twice" in str(error):
                raise
    _check_events(text)
    loader = _LOADER(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


# The safe loader makes plain values only. That of libyaml reads ten times as fast; not every build of PyYAML has it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Open:
    """A list or mapping whose end has not been read: its anchor, its values so far, and its keys if it is a mapping."""

    def __init__(self, anchor: str | None, is_mapping: bool) -> None:
        self.anchor, self.values, self.keys = anchor, 1, set[str]() if is_mapping else None
        self.items = 0

    def add(self, values: int, text: str | None) -> None:
        """Count one item, which may be a key of a mapping."""
        if self.keys is not None and self.items % 2 == 0 and text is not None:
            if text in self.keys:
                raise ValueError(f"the key {shortened(text, 60)} stands there twice")
            self.keys.add(text)
        self.items += 1
        self.values += values


def _check_events(text: str) -> None:
    """Refuse a YAML text with too many or too long values, also by aliases, that is too deep, or has a key twice.

    It is read event by event, so that nothing is built yet.
    """
    sizes: dict[str | None, int] = {}
    stack = [_Open(None, False)]
    aliased = 0
    for number, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if number > _MOST_YAML_VALUES:
            raise ValueError(f"it holds more than {_MOST_YAML_VALUES:,} values, the most that are read")
        if isinstance(event, yaml.AliasEvent):
            aliased += _aliased(event.anchor, sizes)
            if aliased > _MOST_ALIASED:
                raise ValueError(f"its aliases stand for more than {_MOST_ALIASED:,} values")
            stack[-1].add(sizes[event.anchor], None)
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _MOST_SCALAR:
                raise ValueError(
                    f"{shortened(event.value, 60)} has {len(event.value):,} characters, too many for a value"
                )
            _check_number(event)
            stack[-1].add(1, event.value)
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(stack) > _MOST_LEVELS + 1:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = stack.pop()
            stack[-1].add(ended.values, None)
            sizes |= {ended.anchor: ended.values} if ended.anchor else {}


def _check_number(event: yaml.ScalarEvent) -> None:
    """Refuse a number without quotes that YAML takes for another one, such as the code 010 of an attribute."""
    if event.implicit[0] and _STRANGE_NUMBER.fullmatch(event.value):
        value = yaml.safe_load(event.value)
        if not isinstance(value, str) and str(value) != event.value.lstrip("+"):
            raise ValueError(
                f"{shortened(event.value, 60)} is the number {value} in YAML. Write {value}, or put it in quotes if it "
                "is a name or a code"
            )


def _aliased(anchor: str | None, sizes: Mapping[str | None, int]) -> int:
    if anchor not in sizes:
        raise ValueError(f"the alias {shortened(anchor, 60)} stands for nothing, or for itself")
    return sizes[anchor]


def check_plain(content: object, level: int = 0) -> None:
    """Refuse values that no settings file holds.

    Args:
        content: what a parser returned.
        level: how deep it is nested in other content.

    Raises:
        ValueError, RecursionError: there is such a value.
    """
    if level > _MOST_LEVELS:
        raise RecursionError
    if isinstance(content, dict | list):
        for value in content if isinstance(content, list) else (*content, *content.values()):
            check_plain(value, level + 1)
    elif isinstance(content, str):
        if "\x00" in content or not _is_text(content):
            raise ValueError(f"{shortened(content.encode('ascii', 'backslashreplace').decode(), 60)} is no text")
    elif isinstance(content, float):
        if not math.isfinite(content):
            raise ValueError(f"{content} is no finite number")
    elif isinstance(content, int) and not -(2**63) <= content < 2**63:
        raise ValueError(f"a number of {content.bit_length()} bits; at most 64 are read")


def _is_text(value: str) -> bool:
    """Return whether a text can be written. Names of files may hold bytes that are no UTF-8, which Python escapes."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
