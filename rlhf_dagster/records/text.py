"""The page about a loop's folder: the prose of ``templates/files.md``, then every kind of label and every table."""

import inspect
from collections.abc import Iterable
from importlib import resources
from typing import NamedTuple

import pyarrow as pa

from rlhf_dagster.records import schemas
from rlhf_dagster.records.kinds import ALL_KINDS, LabelKind


class TableOnDisk(NamedTuple):
    """A table of a loop's folder."""

    title: str
    schema: pa.Schema
    where: str
    """The files that hold it, and what there is to say of them, in Markdown."""


def _parts(name: str) -> str:
    return f"`imports/{name}.parquet` and, where they are many, the files of `imports/{name}/` too."


TABLES_ON_DISK = (
    TableOnDisk("Prompts", schemas.PROMPTS, "`assets/prompts.parquet`."),
    TableOnDisk(
        "Lineage of prompts",
        schemas.PROMPT_LINEAGE,
        "`assets/prompts/lineage.parquet`, of the prompts from logs (`data.feedback`).",
    ),
    TableOnDisk(
        "Demonstrations",
        schemas.DEMONSTRATIONS,
        "`assets/demonstrations.parquet`; those of the test split, on which nothing is trained and with which "
        "evaluations compare responses, are in `assets/demonstrations/test.parquet`.",
    ),
    TableOnDisk("Pretraining text", schemas.PRETRAINING_TEXT, "`assets/pretraining_text.parquet`."),
    TableOnDisk(
        "Completions",
        schemas.COMPLETIONS,
        "`assets/completions/ROUND.parquet`; those of imported judgments are in "
        "`imports/completions.parquet` and, where they are many, in the files of `imports/completions/` too.",
    ),
    TableOnDisk(
        "Evaluation completions", schemas.EVALUATION_COMPLETIONS, "`assets/evaluation_completions/ROUND.parquet`."
    ),
    TableOnDisk(
        "Comparisons",
        schemas.COMPARISONS,
        "`assets/preference_batch/ROUND.parquet`, `assets/evaluation_batch/ROUND.parquet` and, for demonstrations that "
        "are asked of annotators, `assets/demonstration_batch.parquet`; those of imported judgments are in "
        "`imports/comparisons.parquet` and `imports/comparisons/`.",
    ),
    TableOnDisk("Labels", schemas.LABELS, "`assets/preference_labels/ROUND.parquet`."),
    TableOnDisk("Preferences", schemas.PREFERENCES, "`assets/preference_dataset/ROUND.parquet`."),
    TableOnDisk("Feedback", schemas.FEEDBACK, "`assets/feedback/ROUND.parquet`, where `dpo.loss` is `kto`."),
    TableOnDisk("Quarantine", schemas.QUARANTINE, "`quarantine/PURPOSE-ROUND.parquet`."),
    TableOnDisk(
        "Quality of labels",
        schemas.QUALITY,
        "No Parquet file: the list `annotators` in `assets/label_quality/ROUND.json`.",
    ),
    TableOnDisk("Imported prompts", schemas.IMPORTED_PROMPTS, _parts("prompts")),
    TableOnDisk("Imported demonstrations", schemas.IMPORTED_DEMONSTRATIONS, _parts("demonstrations")),
    TableOnDisk("Imported feedback", schemas.IMPORTED_FEEDBACK, _parts("feedback")),
    TableOnDisk("Imported gold questions", schemas.IMPORTED_GOLD, _parts("gold")),
)


def files_page() -> str:
    """Markdown about everything in a loop's folder."""
    prose = (resources.files("rlhf_dagster") / "templates" / "files.md").read_text(encoding="utf-8").splitlines()
    tables = ["## Tables", "", "Parquet with these columns; the Dagster UI shows them on each asset's page.", ""]
    tables += [line for shown in TABLES_ON_DISK for line in _table(shown)]
    return "\n".join([*prose, "", *_kinds(ALL_KINDS.values()), *tables])


def _kinds(kinds: Iterable[LabelKind]) -> list[str]:
    rows = [f"| `{kind.name}` | {kind.decides} | {_form(kind)} |" for kind in kinds]
    about = (
        "`kind` of a comparison says what annotators decide. `label_store.sqlite` holds their answers as JSON in these "
        "forms, or as Label Studio's own. They count the positions shown from 0, and every comparison of responses can "
        'also be answered with `{"cannot_decide": true}`.'
    )
    return ["## Kinds of label", "", about, "", "| kind | an annotator decides | form |", "|---|---|---|", *rows, ""]


def _form(kind: LabelKind) -> str:
    return " ".join((inspect.getdoc(kind) or "").replace("``", "`").split()).rstrip(".")


def _table(shown: TableOnDisk) -> list[str]:
    rows = [f"| `{column.name}` | {_type(column.type)} | {schemas.meaning(column)} |" for column in shown.schema]
    return [f"### {shown.title}", "", shown.where, "", "| column | type | meaning |", "|---|---|---|", *rows, ""]


def _type(kind: pa.DataType) -> str:
    """A type as a person would say it."""
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return " and ".join(f"{field.name} ({_type(field.type)})" for field in kind)
    return "time (UTC)" if pa.types.is_timestamp(kind) else str(kind)


if __name__ == "__main__":
    print(files_page())  # noqa: T201
