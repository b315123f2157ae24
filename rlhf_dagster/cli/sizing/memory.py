"""`rlhf check-memory`: what each stage needs, by parts, and how to make what does not fit fit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rlhf_dagster.cli.sizing.outlines import named_model, outline_of_model
from rlhf_dagster.compute.fitting import Way, ways_to_fit
from rlhf_dagster.compute.free_memory import Free, free_memory
from rlhf_dagster.compute.memory import placed, required_bytes, settled
from rlhf_dagster.compute.stages import BORROWED, loop_specs
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig, load_config
from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.specs import Spec

GIGA = 1e9
NOTE = (
    "Estimates for texts that are as long as the settings allow. On a GPU its context and libraries come on top, about "
    "0.5 to 1 GB of every process."
)
COLUMNS = tuple(field.name for field in fields(Parts))
OF_PARTS = "gathered"
"""Shown where models are in parts."""


@dataclass(frozen=True)
class Asked:
    """What is to be estimated: a loop's folder, or a model by its folder or name, with whose settings."""

    what: str
    revision: str = ""
    loop: Path | None = None
    preset: str = ""
    free: float | None = None
    """GB that are free on a GPU, or on a CPU where the settings say so, in place of what is free here."""


@dataclass(frozen=True)
class StageMemory:
    """A stage's estimate for one process, in bytes."""

    stage: str
    parts: Parts
    peak: int
    fits: bool | None
    """None where it is not known what is free."""
    ways: tuple[Way, ...] = ()


def print_memory(asked: Asked, as_json: bool) -> int:
    """Print the table; returns the exit code: 0 where every stage fits, 1 where one does not.

    Raises:
        UserError: there is no such loop or model.
    """
    config = _config(asked)
    if asked.free is not None and config.compute.device == "auto":
        config = config.changed(compute=config.compute.changed(device="cuda"))
    free = _free(asked, config)
    config = config.changed(
        base_model=_in_loop(asked, config) if _is_loop(asked) else named_model(asked.what, asked.revision)
    )
    with outline_of_model(config.base_model) as model:
        rows = [_row(stage, spec, free) for stage, spec in loop_specs(model, config).items()]
    if as_json:
        print(json.dumps({"free_bytes": free.bytes, "where": free.where, "stages": [_record(row) for row in rows]}))
    else:
        _print(rows, free)
    return 0 if all(row.fits is not False for row in rows) else 1


def _row(stage: str, spec: Spec, free: Free) -> StageMemory:
    spec = settled(spec, free)
    parts, peak = training_of(spec).peak_memory(placed(spec)), required_bytes(spec)
    if free.bytes is None:
        return StageMemory(stage, parts, peak, None)
    each = free.bytes // (spec.compute.processes if free.shared else 1)
    return (
        StageMemory(stage, parts, peak, True)
        if peak <= each
        else StageMemory(stage, parts, peak, False, _ways(stage, spec, each))
    )


def _ways(stage: str, spec: Spec, free: int) -> tuple[Way, ...]:
    return tuple(ways_to_fit(spec, free, section=BORROWED.get(stage)))


def _config(asked: Asked) -> LoopConfig:
    if asked.loop is not None and asked.preset:
        raise UserError("--loop and --preset are two sources of settings; give one of them.")
    if _is_loop(asked):
        return load_config(Path(asked.what))
    if asked.loop is not None:
        return load_config(asked.loop)
    return LoopConfig.parse({"preset": asked.preset} if asked.preset else {}, "--preset")


def _is_loop(asked: Asked) -> bool:
    return (Path(asked.what) / CONFIG_FILE).is_file()


def _free(asked: Asked, config: LoopConfig) -> Free:
    if asked.free is not None:
        return Free(int(asked.free * GIGA), "the device given", shared=False)
    return free_memory(config.compute)


def _in_loop(asked: Asked, config: LoopConfig) -> BaseModelSettings:
    """The base model that the loop has, or else the one that it will take or make."""
    from rlhf_dagster.loop.folder import LoopFolder

    made = LoopFolder.open(Path(asked.what)).checkpoint("base_model")
    if made is not None:
        return BaseModelSettings(source="folder", name=str(made.folder))
    settings = config.base_model
    in_folder = settings.source == "folder" and bool(settings.name)
    return settings.changed(name=str(Path(asked.what) / settings.name)) if in_folder else settings


def _record(row: StageMemory) -> dict[str, Any]:
    ways = [{"settings": {change.name: change.value for change in way.changes}, "peak": way.needed} for way in row.ways]
    parts: Mapping[str, Any] = {name: round(size) for name, size in asdict(row.parts).items()}
    return {"stage": row.stage, **parts, "peak": row.peak, "fits": row.fits, "ways": ways}


def _print(rows: list[StageMemory], free: Free) -> None:
    known = "how much is free is not known" if free.bytes is None else f"{free.bytes / GIGA:.1f} GB are free"
    table = Table(
        title=f"GB of each process at its peak; {known} on {free.where}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("stage", no_wrap=True)
    names = [name for name in COLUMNS if name != OF_PARTS or any(row.parts.gathered for row in rows)]
    for name in (*names, "peak"):
        table.add_column(name, justify="right")
    table.add_column("fits")
    for row in rows:
        parts = (f"{getattr(row.parts, name) / GIGA:.2f}" for name in names)
        table.add_row(row.stage, *parts, f"{row.peak / GIGA:.2f}", {None: "?", True: "yes", False: "no"}[row.fits])
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        for line in _advice(row):
            console.print(line, soft_wrap=True, markup=False)
    console.print(NOTE, soft_wrap=True)


def _advice(row: StageMemory) -> Iterator[str]:
    if row.fits is not False:
        return
    if not row.ways:
        yield f"{row.stage} does not fit with any settings that were tried; take a smaller model."
        return
    yield f"{row.stage} fits with one of these:"
    yield from (f"  {way.text}  ({way.needed / GIGA:.2f} GB)" for way in row.ways)
