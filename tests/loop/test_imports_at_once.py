"""Two machines that import into one loop at the same moment: with a bucket, a ledger in Postgres, and own folders."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.data.import_file import ImportOptions
from rlhf_dagster.data.imported import append_new, imported
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.imports import import_into
from rlhf_dagster.records.schemas import COMPARISONS, IMPORTED_PROMPTS
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.storage.local import LocalStore

ROUND, PURPOSE = "round-0000", "train"


@pytest.fixture
def machines(postgres, tmp_path: Path) -> list[LoopFolder]:
    """One loop as two machines have it."""
    text, address = f"name: one\nledger: {postgres.address()}\n", f"memory://{uuid.uuid4().hex}"
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / CONFIG_FILE).write_text(f"{text}root: {address}\n", encoding="utf-8")
        found.append(LoopFolder.open(tmp_path / name))
    return found


def judgments(folder: Path, numbers: range) -> Path:
    lines = (
        {"comparison": f"c{n}", "prompt": f"Say {n}.", "responses": ["a", "b"], "choice": 0, "annotator": "ann"}
        for n in numbers
    )
    file = folder / f"{numbers.start}.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return file


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """What each returns, or the sentence that it raises."""
    begin = Barrier(len(works))

    def one(work: Callable[[], object]) -> object:
        begin.wait()
        try:
            return work()
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(one, works))


def test_one_machine_at_a_time_imports(machines: list[LoopFolder], tmp_path: Path) -> None:
    first, second = machines
    file = judgments(tmp_path, range(5))
    with first.ledger.exclusive_at_once(".import", first.root / "work") as alone:
        assert alone
        with pytest.raises(UserError, match=r"Another import into .* is at work: wait until it ends"):
            import_into(second, "judgments", file, ImportOptions())
    assert import_into(second, "judgments", file, ImportOptions()).added == 5


def test_judgments_of_two_machines_are_each_there_once(machines: list[LoopFolder], tmp_path: Path) -> None:
    files = [judgments(tmp_path, range(30)), judgments(tmp_path, range(10, 40))]
    asked = list(zip(machines, files, strict=True))
    for work in at_once(
        [lambda loop=loop, file=file: import_into(loop, "judgments", file, ImportOptions()) for loop, file in asked]
    ):
        assert not isinstance(work, str) or "Another import" in work
    for loop, file in asked:  # whoever was refused does as the sentence says
        import_into(loop, "judgments", file, ImportOptions())
    for loop in machines:
        annotations, _ = loop.ledger.read(ROUND, PURPOSE)
        assert len(annotations) == len({one.comparison_id for one in annotations}) == 40
        table = imported(loop.store, "comparisons", COMPARISONS)
        assert set(table["comparison_id"].to_pylist()) == {one.comparison_id for one in annotations}
        assert len(table) == 40


@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_rows_that_two_write_without_a_lock_are_each_there_once(kind: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path) if kind == "folder" else open_store(f"memory://{uuid.uuid4().hex}")

    def rows(numbers: range) -> list[dict[str, object]]:
        return [{"prompt_id": str(n), "text": f"Say {n}.", "source": "s", "user": ""} for n in numbers]

    for turn in range(5):
        parts = [range(turn * 40, turn * 40 + 30), range(turn * 40 + 10, turn * 40 + 40)]
        at_once([lambda part=part: append_new(store, "prompts", rows(part), IMPORTED_PROMPTS) for part in parts])
        ids = imported(store, "prompts", IMPORTED_PROMPTS)["prompt_id"].to_pylist()
        assert sorted(map(int, ids)) == list(range((turn + 1) * 40))
