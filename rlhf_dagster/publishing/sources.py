"""What a loop's policies are made from, and the licence that each of it states in its card."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlhf_dagster.config.data import HubDataset
from rlhf_dagster.data.import_licences import imported_licences, imported_sources
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.licences import NO_LICENCE, OURS, LicensedSource
from rlhf_dagster.tasks.known import EMBEDDED_TASKS

_CARD = "README.md"


def sources_of(loop: LoopFolder) -> list[LicensedSource]:
    """The base model and the data of a loop, each once; the Hub is asked for the licences of what is there."""
    found = [*_base(loop), *_datasets(loop), *_data(loop)]
    return list({source.what: source for source in found}.values())


def _base(loop: LoopFolder) -> Iterator[LicensedSource]:
    """The base model, unless it was trained here."""
    settings = loop.config.base_model
    if settings.source == "folder":
        yield LicensedSource("the base model", _beside(loop.root / settings.name))
    elif settings.source == "hub":
        licence = _on_hub(lambda api: api.model_info(settings.name, revision=settings.revision or None))
        yield LicensedSource(f"the base model {settings.name}", licence, settings.name)


def _datasets(loop: LoopFolder) -> Iterator[LicensedSource]:
    data = loop.config.data
    used = [data.prompts_dataset, data.demonstrations_dataset]
    if loop.config.base_model.source == "tiny":
        used.append(data.pretraining_dataset)
    for dataset in used:
        if dataset is not None:
            yield _dataset(loop, dataset)


def _dataset(loop: LoopFolder, dataset: HubDataset) -> LicensedSource:
    folder = loop.root / dataset.name
    if folder.exists():
        return LicensedSource(f"the data in {folder.name}", _beside(folder))
    licence = _on_hub(lambda api: api.dataset_info(dataset.name, revision=dataset.revision))
    return LicensedSource(f"the data set {dataset.name}", licence, dataset.name)


def _data(loop: LoopFolder) -> Iterator[LicensedSource]:
    data = loop.config.data
    if data.source == "task":
        licence = OURS if data.task in EMBEDDED_TASKS else ""
        yield LicensedSource(f"the texts of the task {_task_name(data.task)}", licence)
    if any(loop.store.list("imports")) or (data.source == "imports" and not list(_datasets_named(loop))):
        yield from _imports(loop)
    if data.pretraining_files and loop.config.base_model.source == "tiny":
        yield LicensedSource("the pretraining files", "")


def _imports(loop: LoopFolder) -> Iterator[LicensedSource]:
    """The sources of imported records, each with the licence that was said at its import."""
    licences, sources = imported_licences(loop.store), imported_sources(loop.store)
    for source in sources & licences.keys():
        yield LicensedSource(f"the imported data of {source}", licences[source])
    if sources - licences.keys() or not sources:
        yield LicensedSource("the imported data", "")


def _datasets_named(loop: LoopFolder) -> Iterator[HubDataset]:
    data = loop.config.data
    return (one for one in (data.prompts_dataset, data.demonstrations_dataset) if one is not None)


def _task_name(task: str) -> str:
    """Without the path of the file that it is in."""
    return task.rpartition(":")[2]


def _beside(folder: Path) -> str:
    """What the card in a folder of this machine says; empty where it says nothing."""
    from huggingface_hub import ModelCard

    try:
        return _identifier(ModelCard.load(folder / _CARD).data)
    except Exception:  # a card is somebody else's file, and one that cannot be read says nothing
        return ""


def _on_hub(ask: Callable[[Any], Any]) -> str:
    """What a card on the Hub says; empty where it says nothing, or where the Hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return _identifier(ask(HfApi()).card_data)
    except Exception:  # a name that is not there, no network, no access: the licence is not known
        return ""


def _identifier(card: Any) -> str:
    """The licence in a card's data; several cannot be chosen among here."""
    licence = getattr(card, "license", None)
    return licence if isinstance(licence, str) and licence not in NO_LICENCE else ""
