"""Files to import that are broken, endless, archives that unpack to all memory, or tables that bring code."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile.case import Case, Place, rlhf, rlhf_done, tests_of, values_of
from benchmarks.hostile.checkpoints import long_file, pickled

KNOWN = tests_of("data/reading/test_known.py")
FORMS = tests_of("data/judgment_forms/test_public_forms.py")
OWN = tests_of("data/judgment_forms/test_own.py")
Make = Callable[[Place, Path], object]


def a_loop(place: Place) -> Path:
    """A loop with a prompt and a judgment."""
    if place.loop.exists():
        return place.loop
    from loops import write_loop

    from rlhf_dagster.loop.folder import LoopFolder

    loop = write_loop(place.loop, data={"source": "imports"}, label_store={"simulated_annotators": False})
    LoopFolder.open(loop)
    good = place.folder / "good.jsonl"
    good.write_text('{"prompt": "Why?"}\n')
    rlhf_done("import", "prompts", good, "--loop", loop)
    good.write_text('{"prompt": "Why?", "responses": ["a", "b"], "choice": 0, "annotator": "Ada"}\n')
    rlhf_done("import", "judgments", good, "--loop", loop)
    return loop


def of(name: str, file: str, make: Make, kind: str = "prompts", says: str = "") -> Case:
    """``make`` writes the file, or the folder, of this name."""

    def prepare(place: Place) -> None:
        a_loop(place)
        make(place, place.folder / file)

    return Case(name, lambda place: rlhf("import", kind, place.folder / file, "--loop", place.loop), prepare, says)


def holding(data: bytes) -> Make:
    return lambda _, path: path.write_bytes(data)


def row(name: str, values: Any) -> Case:
    return of(name, "rows.jsonl", holding(json.dumps(values).encode() + b"\n"), "judgments")


def with_code(place: Place, path: Path) -> None:
    """A column of a type that old versions of Arrow made by unpickling what stands in the file."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickled(place)}
    schema = pa.schema([pa.field("prompt", pa.string(), metadata=metadata)])
    column = pa.table({"prompt": pa.array([None], pa.string())}).cast(schema)
    if path.suffix == ".parquet":
        pq.write_table(column, path)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, schema) as writer:
            writer.write_table(column)


def script(place: Place, path: Path) -> None:
    """A data set of the Hub as it was when its rows were made by its code."""
    path.mkdir()
    for name in (f"{path.name}.py", "__init__.py", "dataset.py"):
        (path / name).write_text(place.code())


def script_beside_rows(place: Place, path: Path) -> None:
    script(place, path)
    (path / "rows.jsonl").write_text('{"text": 1}\n')
    os.chdir(path)


def many(name: Callable[[int], str], count: int) -> bytes:
    return json.dumps({name(number): number for number in range(count)}).encode()


def linked(place: Place, path: Path) -> None:
    path.mkdir()
    (path / "rows.jsonl").symlink_to("/dev/zero")
    (path / "loop").symlink_to(path)


def piped(place: Place, path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "rows.jsonl")


def huge_columns(place: Place, path: Path) -> None:
    path.write_text(",".join(f"c{number}" for number in range(300_000)) + "\n" + "," * 300_000 + "\n")


def wide_group(place: Place, path: Path) -> None:
    """One text, and that it stands in 512 rows."""
    block = pa.array(["\0" * (1 << 20)] * 512)
    schema = pa.schema([("prompt", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as writer:
        writer.write_table(pa.table({"prompt": block}, schema=schema), row_group_size=512)


BOMB = gzip.compress(bytes(1 << 26), mtime=0)
"""64 MiB of zeros."""
LONG: dict[str, tuple[str, bytes]] = {
    "a line of 5 GB": ("rows.jsonl", b'{"prompt": "'),
    "a cell of 5 GB": ("rows.csv", b'prompt\n"'),
    "a JSON value of 5 GB": ("rows.json", b'[{"prompt": "'),
    "an array of 5 GB": ("rows.json", b"["),
    "zeros of 5 GB": ("rows.jsonl", b""),
    "zeros of 5 GB as a table": ("rows.parquet", b""),
    "zeros of 5 GB as an Arrow file": ("rows.arrow", b"ARROW1\0\0"),
    "zeros of 5 GB as text": ("rows.tsv", b"prompt\n"),
}
OTHERS: list[Case] = [
    *(
        of(name, file, lambda _, path, begin=begin: long_file(path, 5 << 30, begin))
        for name, (file, begin) in LONG.items()
    ),
    *(
        of(f"4 GiB in 4 MB, as {suffix}", f"rows{suffix}.gz", holding(BOMB * 64))
        for suffix in (".jsonl", ".csv", ".json", ".parquet")
    ),
    of("an archive in an archive", "rows.jsonl.gz", holding(gzip.compress(BOMB))),
    of(
        "a bomb of zstd",
        "rows.jsonl.zst",
        lambda _, path: path.write_bytes(pa.compress(bytes(1 << 28), "zstd", asbytes=True) * 16),
    ),
    of("a table of 512 MiB in a kilobyte", "rows.parquet", wide_group),
    *(
        of(f"a type that is code, as {suffix}", f"rows{suffix}", with_code, says="")
        for suffix in (".parquet", ".arrow")
    ),
    *(
        of(f"a pickle called {name}", name, lambda place, path: path.write_bytes(pickled(place)))
        for name in ("rows.jsonl", "rows.parquet", "rows.arrow", "rows.csv", "rows.pkl", "rows.npy", "rows.pt")
    ),
    of("a folder whose rows are made by its code", "evil", script),
    of("a folder with code beside its rows", "evil", script_beside_rows),
    of("a folder with a device in it", "evil", linked),
    of("a folder with a pipe in it", "evil", piped),
    of("a pipe", "rows.jsonl", lambda _, path: os.mkfifo(path)),
    of("a device", "rows.jsonl", lambda _, path: path.symlink_to("/dev/zero")),
    of("a link to itself", "rows.jsonl", lambda _, path: path.symlink_to(path)),
    of("300,000 columns", "rows.csv", huge_columns),
    of("300,000 keys", "rows.jsonl", holding(many(str, 300_000))),
    of("keys that are alike", "rows.jsonl", holding(b'{"prompt": "a", "prompt": 1}')),
    of("a number of 100,000 digits", "rows.jsonl", holding(b'{"prompt": ' + b"9" * 100_000 + b"}")),
    of("numbers beyond all", "rows.jsonl", holding(b'{"prompt": 1e999}\n{"prompt": NaN}\n')),
    of("text that is none", "rows.jsonl", holding(b'{"prompt": "\\ud800"}')),
    of("a page", "rows.html", holding(b"<html><script>alert(1)</script></html>")),
    of("Python", "rows.py", lambda place, path: path.write_text(place.code())),
    of("YAML that makes objects", "rows.yaml", holding(b"prompt: !!python/object/apply:os.system [x]\n")),
    of("a form that is none", "rows.jsonl", holding(b'{"a": 1}\n' * 1000), "judgments"),
]
CASES: list[Case] = [
    *(
        of(f"{name} ({part})", name, holding(data), says="")
        for name, data, part in KNOWN.UNREADABLE
        if not name.startswith(("long", "bomb"))
    ),
    *(
        of(f"a line: {line[:20]!r} ({part})", "rows.jsonl", holding(line.encode()))
        for line, part in values_of(KNOWN.test_a_bad_line_has_its_number_and_the_reason_and_the_rest_is_kept)
    ),
    *(row(f"{form} {number}: {reason}", values) for number, (form, values, reason) in enumerate(FORMS.REFUSED)),
    *(
        row(
            f"{key} {number}: {reason}",
            {name: given for name, given in (OWN.JUDGMENT | {key: value}).items() if given is not OWN.MISSING},
        )
        for number, (key, value, reason) in enumerate(values_of(OWN.test_what_a_judgment_cannot_be))
    ),
    *OTHERS,
]
