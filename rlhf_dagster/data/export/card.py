"""The card of an exported data set, which the Hub shows, and Croissant, which search engines read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlhf_dagster.common.files import write_atomically, writing
from rlhf_dagster.common.version import __version__
from rlhf_dagster.data.export.exporting import Exported
from rlhf_dagster.data.export.folder import DATA
from rlhf_dagster.data.export.row_files import Columns

CARD, CROISSANT = "README.md", "croissant.json"
UNKNOWN_LICENCE = "unknown"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "column": "cr:column",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "source": "cr:source",
}


@dataclass(frozen=True)
class About:
    """What a data set is, for people."""

    name: str
    what: str
    """A sentence."""
    licence: str
    """As the Hub names licences; UNKNOWN_LICENCE where nobody has said."""
    sources: Mapping[str, int]
    """Rows by where their prompts came from."""
    licences: Mapping[str, str]
    """Of those sources of which it is known."""
    annotators: Mapping[str, int]
    """How many people, machines and sources judged; empty where nobody has."""


def write_card(folder: Path, exported: Exported, columns: Columns, about: About, meanings: Mapping[str, str]) -> None:
    """Write the card and Croissant beside the data; ``meanings`` say what columns hold."""
    described = _croissant(folder, exported, columns, about, meanings)
    texts = {
        CARD: _card(exported, columns, about, meanings),
        CROISSANT: json.dumps(described, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        with writing(folder):
            write_atomically(folder / name, text.encode())


def _card(exported: Exported, columns: Columns, about: About, meanings: Mapping[str, str]) -> str:
    files = [f"  - split: {split}\n    path: {DATA}/{split}.parquet" for split in exported.rows]
    head = ["---", f"license: {about.licence}", "configs:", "- config_name: default", "  data_files:", *files, "---"]
    return "\n".join([*head, "", f"# {about.name}", "", about.what, "", *_tables(exported, columns, about, meanings)])


def _tables(exported: Exported, columns: Columns, about: About, meanings: Mapping[str, str]) -> list[str]:
    described = [(f"`{name}`", str(kind), meanings.get(name, "")) for name, kind in columns.items()]
    lost = [f"- {what}" for what in exported.cannot_hold]
    unlicensed = "Nobody has said under which licence this is; ask before you use it." if _is_unknown(about) else ""
    return [
        *_table(("split", "rows"), list(exported.rows.items())),
        *_table(("column", "type", "meaning"), described),
        *_section("Sources of the prompts", _sources(about)),
        *_section("Who judged", _table(("kind of annotator", "how many"), list(about.annotators.items()))),
        *_section("Left out", _table(("reason", "records"), list(exported.left_out.items()))),
        *_section("What this form does not hold", lost),
        *_section("Licence", [about.licence, "", unlicensed]),
        "People are under pseudonyms. Machines are called `machine:NAME`; `source:…` stands for the unknown annotators "
        "of a file.",
        "",
        f"Written by rlhf_dagster {__version__}, in the form `{exported.form}`.",
        "",
    ]


def _sources(about: About) -> list[str]:
    rows = [(source, rows, about.licences.get(source, UNKNOWN_LICENCE)) for source, rows in about.sources.items()]
    return _table(("source", "rows", "licence"), rows)


def _is_unknown(about: About) -> bool:
    return about.licence == UNKNOWN_LICENCE


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""] if lines else []


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines), ""]


def _cell(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _croissant(
    folder: Path, exported: Exported, columns: Columns, about: About, meanings: Mapping[str, str]
) -> dict[str, Any]:
    """Croissant 1.0 (MLCommons 2024): the files with their digests, and a record set of each."""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": about.name,
        "description": about.what,
        "license": about.licence,
        "distribution": [_file(folder, split) for split in exported.rows],
        "recordSet": [_records(split, columns, meanings) for split in exported.rows],
    }


def _file(folder: Path, split: str) -> dict[str, Any]:
    place = f"{DATA}/{split}.parquet"
    with (folder / place).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kind = {"@type": "cr:FileObject", "@id": place, "name": place, "contentUrl": place}
    return kind | {"encodingFormat": "application/x-parquet", "sha256": digest}


def _records(split: str, columns: Columns, meanings: Mapping[str, str]) -> dict[str, Any]:
    fields = [_field(split, name, kind, meanings.get(name, "")) for name, kind in columns.items()]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}


def _field(split: str, name: str, kind: pa.DataType, meaning: str) -> dict[str, Any]:
    repeated = {"repeated": True} if pa.types.is_list(kind) else {}
    inner = kind.value_type if pa.types.is_list(kind) else kind
    source = {"fileObject": {"@id": f"{DATA}/{split}.parquet"}, "extract": {"column": name}}
    head = {"@type": "cr:Field", "@id": f"{split}/{name}", "name": name, "description": meaning, **repeated}
    return head | {"dataType": _data_type(inner), "source": source}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:DateTime" if pa.types.is_timestamp(kind) else "sc:Text"
