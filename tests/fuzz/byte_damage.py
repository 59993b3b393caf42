"""Damage to the bytes of a file, whatever they mean. Every choice is drawn from `choices`, so a seed repeats it."""

import random
import re
import struct
from collections.abc import Callable

Damage = Callable[[random.Random, bytes], bytes]

NUMBERS = (0, 1, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
TEXTS = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "\u202e".encode(), b"[/red]", b"$\\frac{$", b"../../../etc/passwd", b"%s%n",
    b"<!ENTITY a SYSTEM 'file:///etc/passwd'>", b"\x1b[2J", b"{{7*7}}", b"]]>", b"\r\n\r\n", b"nan", b"1e999", b"-1",
    b"/vsicurl/http://127.0.0.1:9/x", b"A" * 5000, b"[" * 3000, b"9" * 5000,
)  # fmt: skip


def _span(choices: random.Random, content: bytes, most: int = 4096) -> tuple[int, int]:
    begin = choices.randrange(len(content) + 1)
    return begin, min(len(content), begin + choices.randrange(1, most))


def flip_bits(choices: random.Random, content: bytes) -> bytes:
    """Flip 1 to 32 bits: half of the time near the beginning, where formats say what follows."""
    changed = bytearray(content)
    if changed:
        reach = len(changed) if choices.random() < 0.5 else min(len(changed), 400)
        for _ in range(choices.choice((1, 1, 2, 4, 8, 32))):
            changed[choices.randrange(reach)] ^= 1 << choices.randrange(8)
    return bytes(changed)


def cut_end(choices: random.Random, content: bytes) -> bytes:
    return content[: choices.randrange(len(content) + 1)]


def cut_begin(choices: random.Random, content: bytes) -> bytes:
    return content[choices.randrange(len(content) + 1) :]


def double(choices: random.Random, content: bytes) -> bytes:
    return content * choices.choice((2, 2, 3, 20))


def remove_span(choices: random.Random, content: bytes) -> bytes:
    begin, end = _span(choices, content)
    return content[:begin] + content[end:]


def repeat_span(choices: random.Random, content: bytes) -> bytes:
    begin, end = _span(choices, content)
    return content[:begin] + content[begin:end] * choices.choice((2, 5, 50)) + content[end:]


def swap_blocks(choices: random.Random, content: bytes) -> bytes:
    places = sorted(choices.randrange(len(content) + 1) for _ in range(4))
    a, b, c, d = places
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def fill_span(choices: random.Random, content: bytes) -> bytes:
    begin, end = _span(choices, content)
    fill = choices.choice((b"\x00", b"\xff", b" ", b"0"))
    return content[:begin] + fill * (end - begin) + content[end:]


def noise_span(choices: random.Random, content: bytes) -> bytes:
    begin, end = _span(choices, content, 200)
    return content[:begin] + choices.randbytes(end - begin) + content[end:]


def insert_text(choices: random.Random, content: bytes) -> bytes:
    place = choices.randrange(len(content) + 1)
    return content[:place] + choices.choice(TEXTS) + content[place:]


def put_number(choices: random.Random, content: bytes) -> bytes:
    """Write a number over 1, 2, 4 or 8 bytes, in either order of bytes."""
    size = choices.choice((1, 2, 4, 4, 8))
    reach = len(content) if choices.random() < 0.5 else min(len(content), 400)
    place = choices.randrange(reach + 1)
    number = choices.choice(NUMBERS) % 2 ** (8 * size)
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    return content[:place] + struct.pack(choices.choice("<>") + code, number) + content[place + size :]


def put_written_number(choices: random.Random, content: bytes) -> bytes:
    """Replace a number that is written in digits."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", content[:200_000]))
    if not found:
        return put_number(choices, content)
    one = choices.choice(found)
    odd = choices.choice((b"0", b"-1", b"1e308", b"1e999", b"nan", b"99999999999999999999", b"4294967296", b"", b"0x1"))
    return content[: one.start()] + odd + content[one.end() :]


def nothing(choices: random.Random, content: bytes) -> bytes:
    return b""


def zeros(choices: random.Random, content: bytes) -> bytes:
    return bytes(len(content))


def other_encoding(choices: random.Random, content: bytes) -> bytes:
    """Write text in another encoding; other content gets the mark of an encoding in front."""
    name = choices.choice(("utf-16", "utf-32", "utf-8-sig", "cp037"))
    try:
        return content.decode().encode(name)
    except (UnicodeDecodeError, UnicodeEncodeError):
        return b"\xef\xbb\xbf" + content


DAMAGES: tuple[Damage, ...] = (
    flip_bits, flip_bits, cut_end, cut_end, cut_begin, double, remove_span, repeat_span, swap_blocks, fill_span,
    noise_span, insert_text, insert_text, put_number, put_number, put_number, put_written_number, nothing, zeros,
    other_encoding,
)  # fmt: skip
