"""`rlhf doctor`: whether a loop has what it needs to go on, a line for each thing; nothing is changed."""

import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import pandas as pd

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig
from rlhf_dagster.data.conversations.logs import Logs
from rlhf_dagster.data.imported import is_imported
from rlhf_dagster.data.tables import build_demonstrations, build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.server import is_local
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.place import place_notice
from rlhf_dagster.loop.guards.splits import require_demonstrations, require_prompts
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.storage.known import is_remote

LEAST_FREE_GB = 2.0
"""Below this little room, a model of a toy and its states may not fit on the disk."""


@dataclass(frozen=True)
class Diagnosis:
    """What one look has found."""

    about: str
    sentence: str
    mend: str = ""
    """The command or the act that mends it; empty where all is well."""


def diagnoses_of(loop: LoopFolder) -> Iterator[Diagnosis]:
    """A diagnosis for each thing that a loop needs; one that raises UserError is what it says."""
    looks: dict[str, Callable[[LoopFolder], Diagnosis]] = {
        "packages": _packages,
        "room": _room,
        "place": _place,
        "files": _files,
        "stop cord": _stop_cord,
        "data": _data,
        "models": _models,
        "label store": _label_store,
        "logs": _logs,
    }
    for about, look in looks.items():
        try:
            yield look(loop)
        except UserError as error:
            yield Diagnosis(about, str(error), f"mend this, then `rlhf doctor {loop.said}` again")


def _packages(loop: LoopFolder) -> Diagnosis:
    missing = sorted({extra for extra, module in _needed(loop.config, loop.address) if find_spec(module) is None})
    if not missing:
        return Diagnosis("packages", "What the settings need is installed.")
    sentence = f"The settings need the extras {', '.join(missing)}, which are not installed."
    return Diagnosis("packages", sentence, install_extras(*missing))


def _needed(config: LoopConfig, address: str) -> Iterator[tuple[str, str]]:
    """Extras with the package of each by which it is known to be there."""
    data = config.data
    if any((data.prompts_dataset, data.demonstrations_dataset, data.pretraining_dataset, data.judgments_dataset)):
        yield "datasets", "datasets"
    if is_remote(address):
        yield "objects", "obstore"
    if config.ledger.startswith("postgres"):
        yield "postgres", "psycopg"
    if data.feedback.logs and data.feedback.personal_data != "keep":
        yield "privacy", "presidio_analyzer"
    if config.automation.notify == "slack":
        yield "slack", "dagster_slack"
    if config.compute.rollout_backend == "vllm":
        yield "vllm", "vllm"


def _room(loop: LoopFolder) -> Diagnosis:
    free = shutil.disk_usage(loop.root).free / 1e9
    sentence = f"{free:,.1f} GB are free at {loop.root}."
    return Diagnosis("room", sentence, f"rlhf models {loop.said} --remove" if free < LEAST_FREE_GB else "")


def _place(loop: LoopFolder) -> Diagnosis:
    notice = place_notice(loop)
    mend = f"rlhf adopt {loop.said}, or work there" if notice else ""
    return Diagnosis("place", notice or f"The loop lives at {loop.address}.", mend)


def _files(loop: LoopFolder) -> Diagnosis:
    findings = list(check_loop(loop))
    if not findings:
        return Diagnosis("files", "Everything that the loop keeps is whole.")
    more = f" There are {len(findings) - 1:,} findings more." if len(findings) > 1 else ""
    return Diagnosis("files", f"{findings[0].sentence}{more}", f"rlhf check {loop.said}")


def _stop_cord(loop: LoopFolder) -> Diagnosis:
    stop = read_stop(loop.store)
    return (
        Diagnosis("stop cord", stop.sentence, f"rlhf resume {loop.option}")
        if stop
        else Diagnosis("stop cord", "Nobody has stopped the loop.")
    )


def _data(loop: LoopFolder) -> Diagnosis:
    prompts, demonstrations = loop.table("prompts"), loop.table("demonstrations")
    if lacking := _not_imported(loop):
        return Diagnosis("data", f"No {lacking} are imported.", f"rlhf import {lacking} FILE {loop.option}")
    if prompts is None or demonstrations is None:
        ahead = _sizes(loop, *_imports(loop)) if _only_imports(loop) else "Prompts and demonstrations"
        return Diagnosis("data", f"{ahead} are not made yet.", f"rlhf run prepare {loop.option}")
    return Diagnosis("data", f"{_sizes(loop, prompts, demonstrations)}.")


def _only_imports(loop: LoopFolder) -> bool:
    """Whether the data are files that were imported, so that it costs nothing to see what will be made of them."""
    data = loop.config.data
    others = (data.prompts_dataset, data.demonstrations_dataset, data.feedback.logs, data.demonstrations_to_write)
    return not (loop.config.has_task or any(others))


def _imports(loop: LoopFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    prompts = build_prompts(loop.config, loop.root, loop.store)
    return prompts, build_demonstrations(loop.config, loop.root, loop.store, prompts)[0]


def _sizes(loop: LoopFolder, prompts: pd.DataFrame, demonstrations: pd.DataFrame) -> str:
    """How many there are; raises UserError where they are too few for any policy to be promoted."""
    require_prompts(loop.config, prompts)
    require_demonstrations(demonstrations)
    sizes = prompts["split"].value_counts()
    each = ", ".join(f"{int(sizes.get(split, 0)):,} {split}" for split in ("train", "validation", "test"))
    return f"{len(prompts):,} prompts ({each}) and {len(demonstrations):,} demonstrations"


def _not_imported(loop: LoopFolder) -> str:
    """The kind of record that the loop needs and has from nowhere; empty where there is none."""
    data = loop.config.data
    if loop.config.has_task:
        return ""
    if not (data.prompts_dataset or data.feedback.logs or is_imported(loop.store, "prompts")):
        return "prompts"
    written = data.demonstrations_dataset or data.demonstrations_to_write
    return "" if written or is_imported(loop.store, "demonstrations") else "demonstrations"


def _models(loop: LoopFolder) -> Diagnosis:
    sft, champion = loop.checkpoint("sft_checkpoint"), loop.registry.champion()
    if sft is None or champion is None:
        return Diagnosis("models", "There is no SFT policy yet.", f"rlhf run prepare {loop.option}")
    _ = loop.policy(champion.policy_id).folder
    return Diagnosis("models", f"The champion is {champion.policy_id}.")


def _label_store(loop: LoopFolder) -> Diagnosis:
    settings = loop.config.label_store
    try:
        store = loop.label_store
        if isinstance(store, EmbeddedLabelStore):
            who = "Simulated annotators judge" if settings.simulated_annotators else "People judge by `rlhf label`"
            return Diagnosis("label store", f"{who}; the ledger is at {store.address}.")
        _ = store.client
    except UserError as error:
        local = settings.kind == "label_studio" and is_local(settings.url)
        mend = f"rlhf label-studio up {loop.option}" if local else f"correct `label_store` in {CONFIG_FILE}"
        return Diagnosis("label store", str(error), mend)
    return Diagnosis("label store", f"Label Studio answers at {settings.url}.")


def _logs(loop: LoopFolder) -> Diagnosis:
    names = loop.config.data.feedback.logs
    missing = Logs.of(names, loop.root).missing
    if missing:
        sentence = f"{missing[0]} of data.feedback.logs is not there yet."
        return Diagnosis("logs", sentence, f"rlhf serve --log {shlex.quote(str(loop.root / missing[0]))} {loop.option}")
    return Diagnosis("logs", f"{len(names)} logs of conversations are read." if names else "No log is to be read.")
