"""Damage that knows the form of a file, and so gets beyond its first check: one value of a record, one declared size.

Files that hold a digest of their own get a new one most of the time: a wrong digest is refused before all else.
"""

import contextlib
import io
import json
import random
import sqlite3
import struct
import zipfile
import zlib
from typing import Any

import onnx
import yaml
from onnx import TensorProto, helper

from skystill.digests import ONNX_TRAILER, TEXT_TRAILER
from tests.fuzz.byte_damage import DAMAGES, NUMBERS, Damage

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.7, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**40, 2**63 - 1, -(2**63), 2**63, 10**400,
    float("nan"), float("inf"), "", " ", "0", "-1", "1e999", "nan", "a" * 10_000, "\u202eabc", "e\u0301", "\ud800",
    "[/red]", "$\\frac{$", "=1+1", "../../../../etc/passwd", "/etc/passwd", "~", "https://127.0.0.1:9/x", "a\nb",
    "\x00", "<script>", "#GGGGGG", "#000000", "{0.__class__}", "%s%n", "con", "café", "'", '"', [], {}, [[]],
    [None], [1, 2, 3],    [-1, "a", None], ["a", "a"], {"a": 1}, {"": None}, [[[[[[[1]]]]]]], list(range(2000)),
    ["x"] * 300,
)  # fmt: skip


def odd_value(choices: random.Random, sound: object) -> Any:
    """An odd value, or one near a sound one."""
    if isinstance(sound, bool) or choices.random() < 0.6:
        return choices.choice(ODD)
    if isinstance(sound, int | float):
        return choices.choice((-sound, sound * 1000, sound + 1, sound - 1, sound / 7, str(sound), [sound], 1 - sound))
    if isinstance(sound, str):
        text = sound.encode("utf-8", "surrogatepass")
        return choices.choice(DAMAGES)(choices, text).decode("utf-8", "surrogateescape")
    if isinstance(sound, list):
        return choices.choice((sound * 2, sound[1:], sound[::-1], [sound], dict(enumerate(map(str, sound)))))
    return choices.choice((list(sound.items()), list(sound), [sound])) if isinstance(sound, dict) else sound


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in inside for place in _places(value, (*path, key)))]


def change_record(choices: random.Random, content: Any) -> Any:
    """Change one to three places of nested lists and mappings: another value, gone, doubled, or under another name."""
    for _ in range(choices.choice((1, 1, 1, 2, 3))):
        places = _places(content)
        place = choices.choice(places)
        if not place:
            if choices.random() < 0.1:
                return odd_value(choices, content)
            continue
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        key, action = place[-1], choices.random()
        if action < 0.7:
            holder[key] = odd_value(choices, holder[key])
        elif action < 0.8:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, odd_value(choices, holder[key]))
        else:
            holder[choices.choice(("", "x", "__class__", key + "x" if isinstance(key, str) else "y"))] = holder.pop(key)
    return content


def _twin_key(choices: random.Random, text: str) -> str:
    lines = text.splitlines()
    if not lines:
        return text
    line = choices.randrange(len(lines))
    return "\n".join([*lines[: line + 1], lines[line], *lines[line + 1 :]])


def _bomb(choices: random.Random, text: str) -> str:
    """Text that is small and stands for much: nesting, aliases, tags, long numbers."""
    aliases = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    return choices.choice(
        (
            "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, aliases, "&a [*a]",
            "!!python/object/apply:os.system [id]",
            text + "\n!!python/name:os.system ''\n", "1" * 6000, "---\n" + text + "\n---\n" + text, "? [a, b]\n: c\n",
            text.replace(":", ": !!binary |\n  ====", 1), "2024-01-01", "!!timestamp 2024-99-99", "<<: [1, 2]\n" + text,
            "\t" + text, text.replace("\n", "\r"), "- " * 3000, "!!set {a, b}", "1e5000", "[1:60:99999999999999999999]",
            "a: &x {<<: *x}", "%YAML 9.9\n---\n" + text, '{"a": 1, "a": 2}',
        )
    )  # fmt: skip


def damage_text(choices: random.Random, content: bytes) -> bytes:
    """Damage YAML or JSON."""
    text = content.decode()
    way = choices.random()
    if way < 0.1:
        return _twin_key(choices, text).encode()
    if way < 0.2:
        return _bomb(choices, text).encode("utf-8", "surrogateescape")
    is_json = text.lstrip()[:1] in "[{"
    record = change_record(choices, json.loads(text) if is_json else yaml.safe_load(text))
    if is_json or choices.random() < 0.2:
        return json.dumps(record).encode()
    try:
        return yaml.safe_dump(record, allow_unicode=choices.random() < 0.5, sort_keys=False).encode(
            "utf-8", "surrogatepass"
        )
    except (yaml.YAMLError, UnicodeEncodeError):
        return json.dumps(record).encode()


def damage_table(choices: random.Random, content: bytes) -> bytes:
    """Damage a CSV file: one cell."""
    lines = [line.split(",") for line in content.decode().splitlines()] or [[""]]
    line = choices.choice(lines)
    line[choices.randrange(len(line))] = str(odd_value(choices, "1"))
    return "\n".join(",".join(line) for line in lines).encode("utf-8", "surrogatepass")


def damage_tiff(choices: random.Random, content: bytes) -> bytes:
    """Change one field of one entry of the first directory of a little-endian classic TIFF."""
    changed = bytearray(content)
    directory = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, directory)[0]
    for _ in range(choices.choice((1, 1, 2))):
        entry = directory + 2 + 12 * choices.randrange(count)
        kind, size = struct.unpack_from("<HH", content, entry)[1], choices.random()
        if size < 0.1:
            struct.pack_into(
                "<H", changed, entry, choices.choice((254, 256, 257, 258, 259, 262, 277, 339, 317, 34735, 42112))
            )
        elif size < 0.2:
            struct.pack_into("<H", changed, entry + 2, choices.choice((1, 2, 3, 4, 5, 12, 13, 16, 99)))
        elif size < 0.35:
            struct.pack_into("<I", changed, entry + 4, choices.choice(NUMBERS) % 2**32)
        elif kind == 3:
            struct.pack_into("<H", changed, entry + 8, choices.choice((0, 1, 2, 3, 5, 6, 7, 8, 16, 32, 255, 300, 2000)))
        else:
            struct.pack_into("<I", changed, entry + 8, choices.choice(NUMBERS) % 2**32)
    return bytes(changed)


def damage_png(choices: random.Random, content: bytes) -> bytes:
    """Change the chunks of a PNG: sizes in the header, one gone, one twice, one filled; the check sums are right."""
    chunks, place = [], 8
    while place + 8 <= len(content):
        size = struct.unpack_from(">I", content, place)[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += size + 12
    way = choices.random()
    if way < 0.5:
        header = bytearray(chunks[0][1])
        if choices.random() < 0.6:
            side = choices.choice((0, 1, 7, 13_000, 65_536, 2**20, 2**31 - 1, 2**32 - 1))
            struct.pack_into(">I", header, choices.choice((0, 4)), side)
        else:
            header[choices.randrange(8, 13)] = choices.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0] = (chunks[0][0], bytes(header))
    elif way < 0.75:
        extra = (
            (b"PLTE", choices.randbytes(3 * choices.randrange(0, 300))),
            (b"tRNS", choices.randbytes(choices.randrange(9))),
            (b"iCCP", b"x\x00\x00" + zlib.compress(bytes(10**6))),
            (b"zTXt", b"x\x00\x00" + zlib.compress(bytes(10**7))),
            (b"eXIf", b"II*\x00\x08\x00\x00\x00" + choices.randbytes(60)), (b"IDAT", choices.randbytes(50)),
            (b"acTL", choices.randbytes(8)), (b"gAMA", choices.randbytes(4)), (b"pHYs", choices.randbytes(9)),
        )  # fmt: skip
        chunks.insert(choices.randrange(1, len(chunks) + 1), choices.choice(extra))
    else:
        chunk = choices.randrange(len(chunks))
        kind, held = chunks[chunk]
        chunks[chunk : chunk + 1] = choices.choice(
            ([], [chunks[chunk]] * 2, [(kind, choices.choice(DAMAGES)(choices, held))])
        )
    written = b"".join(
        struct.pack(">I", len(held) % 2**32) + kind + held + struct.pack(">I", zlib.crc32(kind + held))
        for kind, held in chunks
    )
    return content[:8] + written


def damage_jpeg(choices: random.Random, content: bytes) -> bytes:
    """Change the sizes that a JPEG declares, or put segments into it."""
    places = [place for place in range(len(content) - 9) if content[place : place + 2] in (b"\xff\xc0", b"\xff\xc2")]
    if places and choices.random() < 0.5:
        changed = bytearray(content)
        sizes = choices.choice(((65_500, 65_500), (0, 0), (1, 65_535), (16_000, 16_000), (9, 31)))
        struct.pack_into(">HH", changed, places[0] + 5, *sizes)
        return bytes(changed)
    marker = choices.choice((b"\xff\xe1", b"\xff\xee", b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe", b"\xff\xc2"))
    held = choices.choice((b"Exif\x00\x00II*\x00\x08\x00\x00\x00", b"", b"http://ns.adobe.com/xap/1.0/\x00<x"))
    held += choices.randbytes(choices.randrange(80))
    place = choices.choice((2, 2, len(content) // 2))
    return content[:place] + marker + struct.pack(">H", len(held) + 2) + held + content[place:]


def damage_safetensors(choices: random.Random, content: bytes) -> bytes:
    """Change the header of a safetensors file. The digest is left out of it, as by another program."""
    size = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    for key in [key for key in metadata if "sha256" in key]:
        del metadata[key]
    for key, text in list(metadata.items()):
        if choices.random() < 0.5 and text[:1] in "[{":
            record = json.loads(text)
            record = {k: v for k, v in record.items() if "sha256" not in k} if isinstance(record, dict) else record
            metadata[key] = json.dumps(change_record(choices, record))
    if choices.random() < 0.5:
        header = change_record(choices, header)
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + content[8 + size :]


def damage_checkpoint(choices: random.Random, content: bytes) -> bytes:
    """Change one member of a checkpoint, which is a zip archive with a digest behind it, and seal it again."""
    body = bytes(TEXT_TRAILER.opened(content))
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as archive, zipfile.ZipFile(made, "w") as changed:
        names = archive.namelist()
        chosen = choices.choice([*names, *[name for name in names if name.endswith("data.pkl")] * 10])
        for name in names:
            held = archive.read(name)
            changed.writestr(name, choices.choice(DAMAGES)(choices, held) if name == chosen else held)
    return made.getvalue() + TEXT_TRAILER.of(made.getvalue())


def damage_sealed(choices: random.Random, content: bytes) -> bytes:
    """Change the bytes before a digest in text, and seal them again."""
    changed = choices.choice(DAMAGES)(choices, bytes(TEXT_TRAILER.opened(content)))
    return changed + TEXT_TRAILER.of(changed)


def damage_onnx(choices: random.Random, content: bytes) -> bytes:
    """Change one thing of an ONNX graph: metadata, shapes, nodes, weights. Half of the time it is sealed as our own."""
    is_sealed = ONNX_TRAILER.found(content) is not None
    model = onnx.load_from_string(bytes(ONNX_TRAILER.opened(content)))
    _DAMAGES_OF_ONNX[choices.randrange(len(_DAMAGES_OF_ONNX))](choices, model)
    written: bytes = model.SerializeToString()
    return written + ONNX_TRAILER.of(written) if is_sealed and choices.random() < 0.5 else written


def _change_metadata(choices: random.Random, model: onnx.ModelProto) -> None:
    if not model.metadata_props:
        helper.set_model_props(
            model, {"classes": '["a", "b"]', "colors": "[[0,0,0],[1,1,1]]", "mean": "[1]", "tile": "0"}
        )
    one = choices.choice(model.metadata_props)
    try:
        one.value = json.dumps(change_record(choices, json.loads(one.value)))
    except ValueError:
        one.value = choices.choice(("", "[" * 3000, "x" * 9999, "nan", "null"))


def _change_input(choices: random.Random, model: onnx.ModelProto) -> None:
    ends = choices.choice((model.graph.input, model.graph.output))
    kind = ends[0].type.tensor_type
    if choices.random() < 0.4:
        kind.elem_type = choices.choice((0, 1, 2, 3, 7, 8, 9, 10, 11, 14, 16))
    elif kind.shape.dim and choices.random() < 0.8:
        choices.choice(kind.shape.dim).dim_value = choices.choice((-1, 0, 1, 2, 3, 5, 4096, 2**20, 2**40, 2**63 - 1))
    else:
        ends.add().CopyFrom(ends[0])
        ends[-1].name += choices.choice(("", "x"))


def _change_node(choices: random.Random, model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    node = choices.choice(nodes)
    way = choices.random()
    if way < 0.25:
        node.op_type = choices.choice(
            ("Loop", "If", "Identity", "Relu", "Softmax", "ArgMax", "Nope", "Resize", "Shape", "Add")
        )
    elif way < 0.35:
        node.domain = choices.choice(("com.microsoft", "ai.onnx.ml", "evil", "\u202e"))
    elif way < 0.5 and len(nodes) > 1:
        nodes.remove(node)
    elif way < 0.6 and node.input:
        node.input[0] = choices.choice(("", "nowhere", node.output[0]))
    elif node.attribute:
        attribute = choices.choice(node.attribute)
        if attribute.ints:
            attribute.ints[choices.randrange(len(attribute.ints))] = choices.choice(
                (0, -1, 1, 7, 65_536, 2**40, 2**63 - 1)
            )
        else:
            attribute.i = choices.choice((0, -1, 1, 7, 2**40))
    else:
        node.attribute.append(helper.make_attribute("axis", choices.choice((-9, 0, 2**40))))


def _change_weights(choices: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = choices.choice(model.graph.initializer)
    way = choices.random()
    if way < 0.35 and tensor.dims:
        tensor.dims[choices.randrange(len(tensor.dims))] = choices.choice((0, -1, 1, 3, 2**16, 2**31, 2**62))
    elif way < 0.5:
        tensor.data_type = choices.choice((0, 1, 2, 3, 6, 7, 8, 10, 11, 99))
    elif way < 0.7:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(
            key="location", value=choices.choice(("/etc/passwd", "../../x", "classes.yaml", "", "."))
        )
        tensor.external_data.add(key="length", value=choices.choice(("-1", "99999999999", "x")))
    elif tensor.raw_data:
        tensor.raw_data = choices.choice(DAMAGES)(choices, tensor.raw_data)


def _change_versions(choices: random.Random, model: onnx.ModelProto) -> None:
    if choices.random() < 0.5:
        model.ir_version = choices.choice((0, 1, 3, 11, 99, 2**40))
    else:
        model.opset_import[0].version = choices.choice((0, 1, 7, 99, 2**40))


def _add_hungry(choices: random.Random, model: onnx.ModelProto) -> None:
    """Add a node that makes gigabytes, or never ends."""
    shape = helper.make_tensor("fuzz_shape", TensorProto.INT64, [1], [choices.choice((2**28, 2**31, 2**40))])
    model.graph.initializer.append(shape)
    node = helper.make_node("ConstantOfShape", ["fuzz_shape"], ["fuzz_made"])
    total = helper.make_node("ReduceSum", ["fuzz_made"], ["fuzz_sum"], keepdims=0)
    out = model.graph.output[0].name
    for one in model.graph.node:
        one.output[:] = [f"{name}_" if name == out else name for name in one.output]
    model.graph.node.extend([node, total, helper.make_node("Add", [f"{out}_", "fuzz_sum"], [out])])


_DAMAGES_OF_ONNX = (
    *[_change_metadata] * 5, *[_change_node] * 4, *[_change_weights] * 3, *[_change_input] * 2, _change_versions,
    _add_hungry,
)  # fmt: skip


def damage_sqlite(choices: random.Random, content: bytes) -> bytes:
    """Change one to three cells of a database, or its schema, by SQL."""
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(content)
        for _ in range(choices.choice((1, 1, 2, 3))):
            tables = [row[0] for row in base.execute("select name from sqlite_master where type = 'table'")]
            table = choices.choice(tables)
            column = choices.choice([row[1] for row in base.execute(f"pragma table_info({table})")])
            rows = base.execute(f"select rowid, {column} from {table}").fetchall()
            if rows and choices.random() < 0.8:
                row, sound = choices.choice(rows)
                _put(choices, base, f"update {table} set {column} = ? where rowid = {row}", sound)
                continue
            base.executescript(
                choices.choice(
                    (
                        f"drop table {table}",
                        f"alter table {table} rename to x; create view {table} as with recursive n(i) as (select 1 "
                        "union all select i + 1 from n) select i name, i value from n",
                        f"create trigger t after update on {table} begin delete from inputs; end",
                        f"alter table {table} rename to x; create table {table} (name, value, id); "
                        f"insert into {table} values ('a', 'b', 'c')",
                        f"insert into {table} select * from {table}",
                        f"delete from {table}",
                    )
                )
            )
        base.commit()
        return base.serialize()


def _put(choices: random.Random, base: sqlite3.Connection, query: str, sound: object) -> None:
    odd = odd_value(choices, sound)
    if isinstance(sound, str) and sound.startswith(("{", "[", '"')) and choices.random() < 0.7:
        odd = json.dumps(change_record(choices, json.loads(sound)))
    elif not isinstance(odd, int | float | str | bytes | None):
        odd = json.dumps(odd)
    with contextlib.suppress(OverflowError, UnicodeEncodeError, sqlite3.Error):  # what a cell cannot hold
        base.execute(query, (odd,))


FORMS: dict[str, Damage] = {
    "text": damage_text,
    "table": damage_table,
    "tiff": damage_tiff,
    "png": damage_png,
    "jpeg": damage_jpeg,
    "safetensors": damage_safetensors,
    "checkpoint": damage_checkpoint,
    "sealed": damage_sealed,
    "sqlite": damage_sqlite,
    "onnx": damage_onnx,
}
