"""Sizes of what a training reads, from headers and footers of its files alone, without torch.

Nothing here fails: a file that cannot be read gets a neutral size, and the training itself refuses it later.
"""

import json
import math
import struct
from pathlib import Path

from rlhf_dagster.training.footprint import KEPT, KEPT_IN_PIECES, Shape

IN_PIECES = ("quick_gelu",)
"""Activation functions of several operations (see :mod:`~rlhf_dagster.training.models.fast_layers`)."""
UNLIMITED = 1 << 31
_SIZES = (
    ("num_hidden_layers", "n_layer"),
    ("hidden_size", "n_embd"),
    ("vocab_size",),
    ("max_position_embeddings", "n_positions"),
)


def parameters_of(folder: Path) -> int:
    """Number of parameters in a checkpoint's safetensors files, from their headers; an unreadable file counts 0."""
    return sum(_numbers_in(file) for file in Path(folder).glob("*.safetensors"))


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


def _numbers_in(file: Path) -> int:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, file.stat().st_size)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0
