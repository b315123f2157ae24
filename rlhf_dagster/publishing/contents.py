"""The files of a policy that go along: weights or adapters, their configs and the tokenizer, and nothing else.

What a loop keeps beside them stays: the manifest with its label ids, the values of PPO, what was found out about the
model, and where things are on this machine.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import ADAPTER_WEIGHTS
from rlhf_dagster.lineage.model_folders import ADAPTER_CONFIG, VOCABULARIES, holds_adapters
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.lineage.weight_files import CONFIG, INDEX, explicit_weights, weight_files
from rlhf_dagster.loop.folder import LoopFolder

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    *VOCABULARIES,
)
_PLACES = ("_name_or_path", "name_or_path", "base_model_name_or_path", "is_local", "local_files_only")
"""Keys of configs under which transformers and peft write where a model was on this machine."""


def write_whole(checkpoint: Checkpoint, out: Path) -> None:
    """Write a policy's weights, adapters added into them, with config and tokenizer into the folder ``out``."""
    folder = checkpoint.folder
    if not holds_adapters(folder):
        _copy(_files_of_model(folder), out)
        return
    from rlhf_dagster.training.scorers.merging import merge_folder

    with tempfile.TemporaryDirectory() as beside:
        merged = Path(beside, "merged")
        merge_folder(folder, merged)
        _copy(_files_of_model(merged), out)


def write_adapters_alone(loop: LoopFolder, checkpoint: Checkpoint, out: Path) -> None:
    """Write a policy's adapters in peft's format, with the tokenizer, for the base model that others have too.

    Raises:
        UserError: there are no adapters by themselves, or their base model is not on the Hub.
    """
    folder, base = checkpoint.folder, loop.config.base_model
    if not holds_adapters(folder):
        raise UserError(
            f"--adapters: {checkpoint.model_id} is a plain model, as `lora.merge` keeps none of its own; leave it out."
        )
    if base.source != "hub":
        raise UserError("--adapters: nobody else has the base model, which is not one of the Hub; leave it out.")
    _copy([folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS, *_tokenizer_files(folder)], out)
    config = json.loads((out / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    named = config | {"base_model_name_or_path": base.name, "revision": base.revision or None}
    (out / ADAPTER_CONFIG).write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def require_nothing_private(out: Path, loop: LoopFolder) -> None:
    """Raise UserError where a text among the files names a place on this machine."""
    for file in sorted(out.rglob("*")):
        if file.suffix in (".json", ".md", ".jinja", ".txt") and str(loop.root) in file.read_text("utf-8", "replace"):
            raise UserError(f"{file.name} names the loop's folder on this machine, so nothing was published.")


def _files_of_model(folder: Path) -> list[Path]:
    index = explicit_weights(folder) or INDEX
    configs = [folder / name for name in (CONFIG, "generation_config.json", *([index] if ".json" in index else []))]
    return [*weight_files(folder), *(file for file in configs if file.is_file()), *_tokenizer_files(folder)]


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _copy(files: list[Path], out: Path) -> None:
    for file in files:
        if file.name.endswith("config.json"):
            content = _without_places(json.loads(file.read_text(encoding="utf-8")))
            (out / file.name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(file, out / file.name)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items() if key not in _PLACES}
    return [_without_places(one) for one in value] if isinstance(value, list) else value
