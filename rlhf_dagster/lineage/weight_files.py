"""The safetensors files that transformers reads from a model folder, and their headers, without torch.

Transformers reads `model.safetensors`, or else the files that `model.safetensors.index.json` names, or what
`transformers_weights` in config.json names. Whatever else lies in the folder is not part of the model.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.bounds.limits import MEBIBYTE, MODEL_TEXT_MIB
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.foreign_folders import beyond_a_model

SINGLE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = "config.json"
OUTPUT_HEADS = ("lm_head", "embed_out")
"""What architectures call the layer that predicts the next token."""
MOST_HEADER = 100_000_000
"""Bytes of the header of a safetensors file, by its format."""
POINTER = b"version https://git-lfs"
"""How the small file begins that Git LFS leaves in place of a large one."""
_FOREIGN = {
    "*.gguf": "GGUF weights",
    "consolidated*": "weights under the names of their maker's own code",
    "pytorch_model*.bin": "pickled weights",
    "*.pt": "pickled weights",
    "*.pth": "pickled weights",
    "*.ckpt": "pickled weights",
    "tf_model.h5": "TensorFlow weights",
    "flax_model.msgpack": "Flax weights",
}


class TensorHeader(NamedTuple):
    dtype: str
    """In safetensors' words, as BF16."""
    shape: tuple[int, ...]
    end: int
    """Where its bytes end, counted from the end of the header."""


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads weights from.

    Raises:
        UserError: there are none, some are missing, or there are two sets of them.
    """
    named = explicit_weights(folder)
    if named is not None:
        return _of_index(folder, named) if named.endswith(".json") else [_present(folder, named, CONFIG)]
    single, index = (folder / SINGLE_FILE).is_file(), (folder / INDEX).is_file()
    if single and index:
        raise UserError(
            f"{folder}: there are two sets of weights, {SINGLE_FILE}, which transformers reads, and the files of "
            f"{INDEX}, which it does not; move away the set that is not this model's."
        )
    if index:
        return _of_index(folder, INDEX)
    if single:
        return [folder / SINGLE_FILE]
    raise UserError(f"{folder}: {_lack(folder)}")


def explicit_weights(folder: Path) -> str | None:
    """The name of the weights, or of their index, where config.json gives one."""
    try:
        config = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = config.get("transformers_weights") if isinstance(config, dict) else None
    return named if isinstance(named, str) else None


def tensors_of(file: Path) -> dict[str, TensorHeader]:
    """The tensors that a safetensors file says it has, whether or not their bytes are there; raises Damaged."""
    try:
        with file.open("rb") as opened:
            begin = opened.read(8)
            (length,) = struct.unpack("<Q", begin)
            size = min(length, MOST_HEADER + 1, file.stat().st_size)
            if size > MODEL_TEXT_MIB.most * MEBIBYTE:
                raise beyond_a_model(file, "its header")
            header = parse_json(opened.read(size))
        return {
            name: TensorHeader(entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        raise Damaged(
            f"{file} cannot be opened: it does not begin as a safetensors file does; fetch it again."
        ) from None


def require_whole(file: Path) -> None:
    """Raise Damaged where a safetensors file is a pointer, has no header or lacks bytes that its header promises."""
    require_no_pointer(file)
    promised = max((tensor.end for tensor in tensors_of(file).values()), default=0)
    size, header = file.stat().st_size, _header_bytes(file)
    if size < header + promised:
        raise Damaged(
            f"{file} cannot be opened: it is cut off after {size} of {header + promised} bytes; fetch it again."
        )


def require_no_pointer(file: Path) -> None:
    """Raise Damaged where Git LFS has left its pointer in place of ``file``."""
    with file.open("rb") as opened:
        if opened.read(len(POINTER)) == POINTER:
            raise Damaged(f"{file} is only Git LFS's pointer to the file; fetch the file itself with `git lfs pull`.")


def _header_bytes(file: Path) -> int:
    with file.open("rb") as opened:
        return 8 + int(struct.unpack("<Q", opened.read(8))[0])


def _of_index(folder: Path, name: str) -> list[Path]:
    files = sorted(set(_weight_map(folder, name).values()))
    return [_present(folder, file, name) for file in files]


def _weight_map(folder: Path, name: str) -> Mapping[str, str]:
    """File names by tensor."""
    index = _present(folder, name, CONFIG)
    require_no_pointer(index)
    try:
        content: Any = parse_json(index.read_text(encoding="utf-8"))
        found = content["weight_map"]
        if found and all(isinstance(file, str) for file in found.values()):
            return dict(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise Damaged(f"{index} does not say in which file each tensor is, so it is damaged; fetch it again.")


def _present(folder: Path, name: str, names_it: str) -> Path:
    if Path(name).name != name:
        raise UserError(f"{folder}: {names_it} names {name!r}, which is no file of this folder; correct it.")
    if (folder / name).is_file():
        return folder / name
    raise UserError(f"{folder}: {name} is missing, though {names_it} names it; fetch the whole model again.")


def _lack(folder: Path) -> str:
    """What is there in place of the weights, and what to do."""
    shards = sorted(path.name for path in folder.glob("*.safetensors") if "-of-" in path.name)
    if shards:
        return f"{INDEX} is missing, without which nothing reads {shards[0]}; fetch the whole model again."
    save = "convert the model to transformers' format with `save_pretrained`."
    for pattern, what in _FOREIGN.items():
        if found := sorted(path.name for path in folder.glob(pattern)):
            return f"no {SINGLE_FILE}, only {what} ({found[0]}), which are not read; {save}"
    if other := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"no {SINGLE_FILE}, and nothing names {other[0]}; {save}"
    return "no .safetensors weights; save the model with `save_pretrained` first."
