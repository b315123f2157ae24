"""`rlhf plan`: a loop planned on paper, line by line."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from rlhf_dagster.cli.sizing.outlines import named_model, outline_of_model, outline_of_size
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.errors import UserError
from rlhf_dagster.planning.arithmetic import Sheet, number_text
from rlhf_dagster.planning.plan import PaperPlan, plan_on_paper
from rlhf_dagster.planning.question import PlanQuestion

PRESET_OF = {"all": "small", "adapters": "lora"}
"""By what is trained, the preset with its settings."""


def print_plan(question: PlanQuestion, train: str, loop: Path | None, as_json: bool) -> None:
    """Print the plan.

    Raises:
        UserError: there is no such model, loop or way to train, or it fits on no number of GPUs that is tried.
    """
    config = _settings(train, loop)
    with _outline(question.model) as folder:
        plan = plan_on_paper(question, config, folder)
    if as_json:
        print(json.dumps(plan.record(), indent=1))
    else:
        _show(plan)


def _settings(train: str, loop: Path | None) -> LoopConfig:
    if train not in PRESET_OF:
        raise UserError(f"--train is {train}; give {' or '.join(PRESET_OF)}.")
    if loop is not None:
        return load_config(loop)
    return LoopConfig.parse({"preset": PRESET_OF[train]}, "--train")


def _outline(model: str) -> AbstractContextManager[Path]:
    if "/" in model or Path(model).is_dir():
        return outline_of_model(named_model(model))
    return outline_of_size(model)


def _show(plan: PaperPlan) -> None:
    console = Console(highlight=False)
    for sheet in plan.sheets:
        console.print(_table(sheet))
    console.print(_needs(plan))
    for number, sentence in enumerate(plan.advice, 1):
        console.print(f"{number}. {sentence}", soft_wrap=True, markup=False)


def _table(sheet: Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, justify in (("", "left"), ("figure", "right"), ("", "left"), ("how", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for line in sheet.lines:
        table.add_row(line.name, number_text(line.value), line.unit, line.how)
    return table


def _needs(plan: PaperPlan) -> Table:
    table = Table(title="What outgrows one host", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("part", "wanted", "one host has", "", "hosts' worth"):
        table.add_column(name, justify="left" if name in ("part", "") else "right")
    for row in _rows(plan):
        table.add_row(*row)
    return table


def _rows(plan: PaperPlan) -> Iterator[tuple[str, ...]]:
    for part in plan.parts:
        figures = (number_text(value) for value in (part.wanted, part.of_one_host))
        yield (part.name, *figures, part.unit, f"{part.times:,.3f}")
