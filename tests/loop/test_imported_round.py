"""Imported judgments are given already: nobody is asked for them again."""

import json
from pathlib import Path

from loops import write_loop

from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels, send_training_batch
from rlhf_dagster.loop.sampling import imported_table, pin_round, sample_completions
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS

NOBODY = {"kind": "label_studio", "url": "http://127.0.0.1:9", "simulated_annotators": False}
"""A server that is not there: any request to it fails."""


def imported(folder: Path) -> LoopFolder:
    loop = LoopFolder.open(write_loop(folder, data={"source": "imports"}, label_store=NOBODY))
    lines = [
        {"comparison": f"c{n}", "prompt": f"film {n} .", "responses": ["good .", "bad ."]}
        | {"annotator": f"person {n % 4}", "choice": 0}
        for n in range(12)
    ]
    file = folder / "judgments.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert import_file("judgments", file, loop.store, loop.ledger).added == 12
    return loop


def test_imported_judgments_are_not_sent_to_label_studio(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a token")
    loop = imported(tmp_path / "loop")
    samples = sample_completions(loop, pin_round(loop, IMPORT_ROUND), loop.table("prompts"))
    batch = send_training_batch(loop, IMPORT_ROUND, samples, lambda *_, **__: None)
    assert (len(batch.comparisons), batch.sent, batch.already_there) == (12, 0, 12)
    assert loop.label_store.addresses(IMPORT_ROUND, "train") == []
    labels, quarantined = read_labels(loop, IMPORT_ROUND, "train")
    assert (len(labels), quarantined) == (12, 0)
    assert list(imported_table(loop, "comparisons", COMPARISONS).columns) == COMPARISONS.names
