"""Records of a loop, written for others to read."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlhf_dagster.data.export.card import UNKNOWN_LICENCE, About, write_card
from rlhf_dagster.data.export.exporting import Exported, columns_for, export_judgments, export_texts, judgment_form
from rlhf_dagster.data.export.judgment_forms.base import Facts
from rlhf_dagster.data.export.meanings import COLUMN_MEANINGS
from rlhf_dagster.data.export.outgoing import OutgoingJudgment, label_judgments, preference_judgments, rows_in
from rlhf_dagster.data.export.row_files import Columns, ending
from rlhf_dagster.data.export.text_forms import text_form
from rlhf_dagster.loop.export.licences import source_licences
from rlhf_dagster.loop.export.tables import (
    ExportKind,
    RecordTables,
    counted,
    counting_labels_of,
    export_round,
    kinds_of_annotators,
    left_out_of_preferences,
)
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.licences import LicensedSource, agreed_licence


def export_records(
    loop: LoopFolder, kind: ExportKind, out: Path, round_key: str = "", form: str = "", licence: str = ""
) -> Exported:
    """Write records of a loop to ``out``: a file by its name's ending, or a folder with a card and Croissant.

    ``round_key`` is that of preferences, labels and completions, by default the newest that has them; ``form`` is one
    of :data:`~rlhf_dagster.data.export.judgment_forms.known.OUTGOING_FORMS`, or of
    :data:`~rlhf_dagster.data.export.text_forms.TEXT_FORMS`. Raises UserError where there is nothing to export, or where
    ``out`` is there already or cannot hold the form, or where the licences of the prompts' sources exclude ``licence``,
    the one that a person names, or each other. Without it the card says theirs, where all are known.
    """
    tables = RecordTables(loop, kind, export_round(loop, kind, round_key))
    write = _write_judgments if kind in ("preferences", "labels") else _write_texts
    about = _about(tables, licence)
    exported, columns = write(tables, out, form)
    if not ending(out):
        write_card(out, exported, columns, about, COLUMN_MEANINGS)
    return exported


def _write_judgments(tables: RecordTables, out: Path, name: str) -> tuple[Exported, Columns]:
    form, sources = judgment_form(name, out), tables.prompt_sources()
    judgments: Iterator[OutgoingJudgment]
    if tables.kind == "preferences":
        axis, left_out = tables.loop.config.labeling.rating_axes[0], left_out_of_preferences(tables)
        rated = tables.records["ratings"].null_count < len(tables.records)
        facts = _facts(tables.records, (axis,) if rated else ())
        judgments = preference_judgments(tables.records, axis, sources)
    else:
        counting, left_out = counting_labels_of(tables)
        comparisons = tables.comparisons()
        facts = _facts(comparisons, tuple(sorted(_axes(tables.records, counting))))
        judgments = label_judgments(tables.records, comparisons, sources, counting)
    return export_judgments(judgments, form, facts, out, left_out), columns_for(out, form, facts)


def _write_texts(tables: RecordTables, out: Path, name: str) -> tuple[Exported, Columns]:
    form, facts = text_form(tables.kind, name), _facts(tables.records)
    return export_texts(rows_in(tables.records), form, facts, out), columns_for(out, form, facts)


def _facts(table: pa.Table, axes: tuple[str, ...] = ()) -> Facts:
    texts = table["messages"].null_count
    return Facts(chats=texts < len(table), texts=texts > 0, axes=axes)


def _axes(labels: pa.Table, rows: np.ndarray) -> set[str]:
    """What is rated in some rows."""
    rated = labels.select(["kind", "axes"]).take(pa.array(rows))
    rated = rated.filter(pc.equal(rated["kind"], "rating"))
    return {axis for text in rated["axes"].unique().to_pylist() if text for axis in json.loads(text)}


def _about(tables: RecordTables, licence: str) -> About:
    name, kind, key = tables.loop.config.name, tables.kind, tables.round_key
    sources = tables.prompt_sources()
    counts = Counter[str]()
    for prompt, n in _prompts(tables).items():
        counts[sources.get(prompt) or "not known"] += n
    judged = "annotator" in tables.records.column_names
    annotators = kinds_of_annotators(tables.records["annotator"].unique().to_pylist()) if judged else {}
    what = f"{kind.capitalize()} of the loop {name}{f', {key}' if key else ''}, exported from rlhf_dagster."
    known = source_licences(tables.loop)
    licences = {source: known[source] for source in counts if source in known}
    agreed = _agreed(counts, licences, licence)
    return About(
        "-".join(filter(None, (name, kind, key))), what, agreed, dict(counts.most_common()), licences, annotators
    )


def _prompts(tables: RecordTables) -> Counter[str]:
    """How many records there are of each prompt, by its id."""
    if tables.kind != "labels":
        return Counter(counted(tables.records["prompt_id"]))
    asked, prompts = tables.comparisons(), Counter[str]()
    of_comparison = dict(zip(asked["comparison_id"].to_pylist(), asked["prompt_id"].to_pylist(), strict=True))
    for comparison, n in counted(tables.records["comparison_id"]).items():
        prompts[of_comparison.get(comparison, "")] += n
    return prompts


def _agreed(sources: Iterable[str], licences: Mapping[str, str], given: str) -> str:
    """The licence of what has these sources; UNKNOWN_LICENCE where one is not known and nobody has given any."""
    named = [LicensedSource(f"what came from {source}", licences.get(source, "")) for source in sources]
    if not given and not all(source.licence for source in named):
        return UNKNOWN_LICENCE
    return agreed_licence(named, given)
