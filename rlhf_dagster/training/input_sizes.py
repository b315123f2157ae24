"""Sizes of what a training reads, from headers and footers of its files alone, without torch.

Nothing here fails: a file that cannot be read gets a neutral size, and the training itself refuses it later.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import plain_folder
from rlhf_dagster.lineage.weight_files import OUTPUT_HEADS, tensors_of, weight_files
from rlhf_dagster.training.footprint.shape import Activation, ModelSizes, Shape

ACTIVATIONS: Mapping[str, Activation] = {"relu": "relu", "quick_gelu": "in_pieces"}
"""Activation functions that keep other than their input and output; some of several operations are made one
(:mod:`~rlhf_dagster.training.models.fast_layers`)."""
UNLIMITED = 1 << 31
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_VOCABULARY = ("vocab_size",)
_CONTEXT = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads")
_SHARED_HEADS = ("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", "kv_n_heads")
_INNER = ("intermediate_size", "n_inner", "decoder_ffn_dim", "ffn_dim", "ffn_hidden_size", "ffn_size")
_ROTARY = ("rope_theta", "rope_parameters", "rotary_emb_base", "rotary_pct")
_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k_experts")
_MAP = re.compile(r"\.\d+\..+\.weight$|^\d+\..+\.weight$")
"""Names of weights of numbered layers, where linear maps are; embeddings and output heads have no number."""
_NUMBERED = re.compile(r"(^|\.)\d+\.")
"""Names of what is in a numbered layer."""
_NO_MAP = re.compile(r"\.experts\.|\.(gate|router|shared_expert_gate)\.weight$")
"""Experts, which transformers holds as one tensor, and what chooses them: no adapter is added to these."""
_GATE = re.compile(r"(gate_proj|gate_up_proj|w3|wi_1|fc_1|linear_v|up_gate_proj)\.weight$")
_QUERY = re.compile(r"(q_proj|q_lin|query|wq|to_q)\.weight$")


def model_sizes(folder: Path) -> ModelSizes:
    """The sizes of a checkpoint, by its config and the headers of its weights; all 0 where they cannot be read.

    Of adapters they are those of the plain model under them.
    """
    folder = _plain(Path(folder))
    config, tensors = _config_of(folder), _tensors_of(folder)
    tied = config.get("tie_word_embeddings", False) is True
    own = {name: shape for name, shape in tensors.items() if not (tied and _is_copy(name, shape, tensors))}
    maps = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in own.items()
        if len(shape) == 2 and _MAP.search(name) and not _NO_MAP.search(name)
    }
    outside = sum(math.prod(shape) for name, shape in own.items() if not _NUMBERED.search(name))
    return ModelSizes(sum(math.prod(shape) for shape in own.values()), _shape(config, tensors), maps, outside)


def _plain(folder: Path) -> Path:
    try:
        return plain_folder(folder)
    except UserError:
        return folder


def parameters_of(folder: Path) -> int:
    """Number of parameters that transformers reads from a checkpoint, by the headers of its files.

    Of adapters it is that of the plain model under them, without their own.
    An output head that is tied to the embedding counts once, and an unreadable file 0.
    """
    return model_sizes(folder).parameters


def shape_of(folder: Path) -> Shape:
    """A checkpoint's shape; all 0 where its config cannot be read."""
    return model_sizes(folder).shape


def beyond_context(what: str, needed: int, context: int, why: str = "") -> UserError:
    """The refusal of sequences that are longer than a model's context; ``what`` names the settings."""
    return UserError(f"{what} needs {needed} tokens but the model's context has {context}{why}; lower it.")


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


def _config_of(folder: Path) -> dict[str, Any]:
    """A checkpoint's config, of its language model where it has several parts; empty where it cannot be read."""
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    text = config.get("text_config")
    return {"tie_word_embeddings": config.get("tie_word_embeddings")} | text if isinstance(text, dict) else config


def _shape(config: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> Shape:
    width, heads = _size(config, _WIDTH), _size(config, _HEADS)
    head = _size(config, ("head_dim",)) or width // max(heads, 1)
    shared = 1 if _has_one_head_of_keys(config) else _size(config, _SHARED_HEADS) or heads
    root_mean_square = "rms_norm_eps" in config
    known = any(_MAP.search(name) for name in tensors)
    separate = _any_named(_QUERY, tensors) if known else root_mean_square
    return Shape(
        layers=_size(config, _LAYERS),
        width=width,
        vocabulary=_size(config, _VOCABULARY),
        context=_size(config, _CONTEXT),
        queries=heads * head or width,
        keys=shared * head or width,
        inner=_inner(config) or 4 * width,
        gated=_any_named(_GATE, tensors) if known else root_mean_square,
        separate=separate,
        root_mean_square=root_mean_square,
        packed=known and not separate and shared == heads and any(name in config for name in _ROTARY),
        activation=ACTIVATIONS.get(str(config.get("activation_function") or config.get("hidden_act")), "plain"),
    )


def _size(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """The first of these numbers that the config has; of a list, which has one for each layer, the largest."""
    for name in names:
        found = config.get(name)
        numbers = found if isinstance(found, list) else [found]
        if numbers and all(isinstance(number, int) and number > 0 for number in numbers):
            return max(map(int, numbers))
    return 0


def _has_one_head_of_keys(config: Mapping[str, Any]) -> bool:
    """Multi-query attention, as Falcon and StarCoder have it."""
    return config.get("multi_query") is True and not config.get("new_decoder_architecture")


def _inner(config: Mapping[str, Any]) -> int:
    """The inner layer of all experts that a token goes to, where there are experts."""
    experts, of_expert = _size(config, _EXPERTS), _size(config, ("moe_intermediate_size",))
    inner = _size(config, _INNER)
    return max(inner, experts * of_expert) if of_expert else inner * max(experts, 1)


def _any_named(pattern: re.Pattern[str], tensors: Mapping[str, tuple[int, ...]]) -> bool:
    return any(pattern.search(name) for name in tensors)


def _tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors, of those that can be read."""
    try:
        files = weight_files(folder)
    except UserError:
        files = sorted(folder.glob("*.safetensors"))
    return {name: shape for file in files for name, shape in _shapes_in(file).items()}


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        state = file.stat()
        return _read_shapes(file, state.st_mtime_ns, state.st_size)
    except (OSError, UserError):
        return {}


@lru_cache(maxsize=256)
def _read_shapes(file: Path, changed: int, size: int) -> dict[str, tuple[int, ...]]:
    """``changed`` and ``size`` are those of the file that was read: looking for settings that fit reads it often."""
    return {name: tensor.shape for name, tensor in tensors_of(file).items()}


def _is_copy(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor is the head's copy of the embedding, which transformers ties whatever the file says."""
    return name.endswith(tuple(f"{head}.weight" for head in OUTPUT_HEADS)) and any(
        other != name and found == shape for other, found in shapes.items()
    )
