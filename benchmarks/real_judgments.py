"""Real judgments through Label Studio and back: the figures of `measure_quality` must be those of the file.

    python benchmarks/real_judgments.py JUDGMENTS.jsonl.gz [--judgments 2000]

Whole comparisons are taken until there are enough judgments. Each annotator is a user of Label Studio who submits his
or her own. Exit code 1 if a figure differs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.server import local_credentials, running
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.round_keys import IMPORT_ROUND

SETTINGS = LabelingSettings(kind="pair", strength=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--judgments", type=int, default=2000)
    parser.add_argument("--port", type=int, default=18097)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedded = EmbeddedLabelStore(folder / "file.sqlite")
        import_file("judgments", options.file, folder, embedded)
        comparisons = embedded.comparisons(IMPORT_ROUND, "train")
        given, _ = embedded.read(IMPORT_ROUND, "train")
        enough = comparisons["labels_wanted"].cumsum() <= options.judgments
        comparisons = comparisons[enough]
        wanted = set(comparisons["comparison_id"])
        given = [annotation for annotation in given if annotation.comparison_id in wanted]
        with running(folder / "server", options.port) as server:
            token = (local_credentials(server.folder) or {})["LABEL_STUDIO_API_KEY"]
            store = LabelStudioStore(
                folder / "ls.sqlite",
                server.url,
                client=lambda: LabelStudioClient(server.url, token),
                settings=SETTINGS,
                loop_name="ukp",
            )
            store.send(comparisons)
            began = time.perf_counter()
            store.submit_many([Submission(a.comparison_id, a.annotator, a.result, a.seconds) for a in given])
            seconds = time.perf_counter() - began
            read, _ = store.read(IMPORT_ROUND, "train")
        expected, found = (measure_quality(*_tables(annotations, comparisons)) for annotations in (given, read))
    people = expected[0]["annotator"].nunique()
    print(f"{len(given):,} judgments of {len(wanted):,} comparisons by {people:,} people, entered in {seconds:.0f} s")
    for figure in ("agreement", "alpha", "first_position"):
        print(f"  {figure}: {expected[1][figure]['value']:.4f} in the file, {found[1][figure]['value']:.4f} read back")
    same = expected[1] == found[1]
    pd.testing.assert_frame_equal(expected[0], found[0])
    print("all figures are equal" if same else "THE FIGURES DIFFER")
    sys.exit(not same)


def _tables(annotations: list, comparisons: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    labels, _ = labels_table(annotations, comparisons, SETTINGS)
    return labels, comparisons


if __name__ == "__main__":
    main()
