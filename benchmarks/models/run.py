"""Trying many models, each in a process of its own, so that none can take the others with it."""

import gc
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.models.matrix import Cell, Outcome, try_model

PATIENCE = 1800
"""Seconds that a model may take on a busy machine; longer means that something hangs."""


@dataclass(frozen=True)
class Row:
    """One model's outcomes in all cells."""

    model: str
    outcomes: list[Outcome]

    @property
    def seconds(self) -> float:
        return sum(outcome.seconds for outcome in self.outcomes)

    def count(self, verdict: str) -> int:
        return sum(outcome.verdict == verdict for outcome in self.outcomes)


def run_models(
    names: Iterable[str], cells: Sequence[Cell], results: Path, tell: Callable[[Row], None], jobs: int = 1
) -> list[Row]:
    """Try the models that have no file in ``results`` yet, ``jobs`` at once, and read those of the others."""
    results.mkdir(parents=True, exist_ok=True)
    rows = []
    with ThreadPoolExecutor(jobs) as pool:
        for row in pool.map(lambda name: _row(name, cells, results / f"{name}.json"), names):
            tell(row)
            rows.append(row)
    return rows


def _row(name: str, cells: Sequence[Cell], file: Path) -> Row:
    if not file.is_file():
        _in_a_process(name, cells, file)
    return _read(name, file, cells)


def _in_a_process(name: str, cells: Sequence[Cell], file: Path) -> None:
    """Forked, as everything is imported already."""
    process = multiprocessing.get_context("fork").Process(target=_try, args=(name, cells, file))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _try(name: str, cells: Sequence[Cell], file: Path) -> None:
    # Collecting garbage, which trainings do often, would look through all of transformers each time.
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = try_model(name, Path(folder), cells)
    file.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n", encoding="utf-8")


def _read(name: str, file: Path, cells: Sequence[Cell]) -> Row:
    if not file.is_file():
        return Row(name, [Outcome(cell.name, "wrong", "its process did not come to an end") for cell in cells])
    return Row(name, [Outcome(**outcome) for outcome in json.loads(file.read_text(encoding="utf-8"))])
