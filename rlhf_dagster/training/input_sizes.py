"""Sizes of what a training reads, from headers and footers of its files alone, without torch.

Nothing here fails: a file that cannot be read gets a neutral size, and the training itself refuses it later.
"""

import json
import math
from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import plain_folder
from rlhf_dagster.lineage.weight_files import OUTPUT_HEADS, TensorHeader, tensors_of, weight_files
from rlhf_dagster.training.footprint import KEPT, KEPT_IN_PIECES, Shape

IN_PIECES = ("quick_gelu",)
"""Activation functions of several operations (see :mod:`~rlhf_dagster.training.models.fast_layers`)."""
UNLIMITED = 1 << 31
_SIZES = (
    ("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_layers"),
    ("hidden_size", "n_embd", "d_model"),
    ("vocab_size",),
    ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len"),
)


def parameters_of(folder: Path) -> int:
    """Number of parameters that transformers reads from a checkpoint, by the headers of its files.

    Of adapters it is that of the plain model under them, without their own.
    An output head that is tied to the embedding counts once, and an unreadable file 0.
    """
    folder = Path(folder)
    try:
        files = weight_files(plain_folder(folder))
    except UserError:
        files = sorted(folder.glob("*.safetensors"))
    shapes = {name: tensor.shape for file in files for name, tensor in _tensors_in(file).items()}
    if _is_tied(folder):
        shapes = {name: shape for name, shape in shapes.items() if not _is_copy(name, shape, shapes)}
    return sum(math.prod(shape) for shape in shapes.values())


def shape_of(folder: Path) -> Shape:
    """A checkpoint's shape, from its config; all 0 where the config cannot be read."""
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        layers, width, vocabulary, context = (
            next((int(config[name]) for name in group if config.get(name)), 0) for group in _SIZES
        )
        in_pieces = (config.get("activation_function") or config.get("hidden_act")) in IN_PIECES
    except (OSError, ValueError, TypeError, AttributeError):
        return Shape(0, 0, 0, 0, KEPT)
    return Shape(layers, width, vocabulary, context, KEPT_IN_PIECES if in_pieces else KEPT)


def rows_at_most(table: Path) -> int:
    """Number of rows of a table, from its footer, which limits a batch; UNLIMITED where it cannot be read."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(table).num_rows)
    except (OSError, pa.ArrowException):
        return UNLIMITED


def responses_at_most(preferences: Path) -> int:
    """The most responses that any label compares, by its target, which is quicker to read; 2 where it cannot be."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    try:
        targets = parquet.read_table(preferences, columns=["target"]).column("target")
        return compute.max(compute.list_value_length(targets)).as_py() or 2
    except (OSError, KeyError, pa.ArrowException):
        return 2


def _tensors_in(file: Path) -> dict[str, TensorHeader]:
    try:
        return tensors_of(file)
    except UserError:
        return {}


def _is_tied(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config.get("tie_word_embeddings", False) is True
    except (OSError, ValueError, AttributeError):
        return False


def _is_copy(name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a tensor is the head's copy of the embedding, which transformers ties whatever the file says."""
    return name.endswith(tuple(f"{head}.weight" for head in OUTPUT_HEADS)) and any(
        other != name and found == shape for other, found in shapes.items()
    )
