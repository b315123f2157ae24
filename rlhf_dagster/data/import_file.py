"""Existing prompts, demonstrations, judgments and gold questions, brought into a loop from JSON lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_dagster.data.imported import add_demonstrations, add_gold, add_prompts
from rlhf_dagster.data.judgment_forms.own import parse_judgment
from rlhf_dagster.data.judgments import add_judgments
from rlhf_dagster.data.line_records import parse_demonstration, parse_gold, parse_prompt
from rlhf_dagster.data.lines import parse_lines, read_lines
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.storage.base import Store

Kind = Literal["prompts", "demonstrations", "judgments", "gold"]

__all__ = ["ImportReport", "import_file"]


@dataclass(frozen=True)
class ImportReport:
    """``added``, ``already_there`` and the number of ``refused`` add up to ``read``."""

    read: int
    """Lines that are not blank."""
    added: int
    already_there: int
    """Prompts and demonstrations that were there without a user, and now have one (as a pseudonym), are included."""
    refused: tuple[tuple[int, str], ...]
    """Line number, counted from 1, and the reason."""


def import_file(kind: Kind, file: Path, files: Store, store: EmbeddedLabelStore | None = None) -> ImportReport:
    """Add the records of ``file`` to the loop whose store is ``files``, each once, however often it is imported.

    ``file`` holds one JSON object a line, plain (``.jsonl``) or compressed (``.jsonl.gz``). Prompts, demonstrations
    and gold questions go to ``imports/*.parquet`` there. Judgments become completions and comparisons there, and
    annotations of round ``round-0000`` in ``store``, which only judgments need. A line that cannot be used is refused,
    with its number and the reason, and the others are kept. Raises :class:`UserError` for a file that cannot be read.
    """
    file = Path(file)
    if kind == "judgments" and store is None:
        raise UserError("Judgments need a label store to go to; this loop has none.")
    lines = read_lines(file)
    if kind == "judgments":
        assert store is not None  # noqa: S101  # checked above, for the type checker
        judgments, refused = parse_lines(lines, parse_judgment)
        added, there, conflicts = add_judgments(judgments, files, store, source=file.name)
        refused = sorted(refused + conflicts)
    elif kind == "demonstrations":
        demonstrations, refused = parse_lines(lines, parse_demonstration)
        added, there = add_demonstrations([record for _, record in demonstrations], files, source=file.name)
    elif kind == "prompts":
        prompts, refused = parse_lines(lines, parse_prompt)
        added, there = add_prompts([record for _, record in prompts], files, source=file.name)
    elif kind == "gold":
        gold, refused = parse_lines(lines, parse_gold)
        added, there = add_gold([record for _, record in gold], files)
    else:
        raise UserError(f"{kind!r} cannot be imported; choose prompts, demonstrations, judgments or gold.")
    return ImportReport(read=len(lines), added=added, already_there=there, refused=tuple(refused))
