"""The longest sequence that a model reads, from its config."""

from transformers import PretrainedConfig

from rlhf_dagster.training.input_sizes import beyond_context

_LIMITS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
"""What architectures call the length of their tables of positions."""
_CHOSEN = ("index_topk", "keep_window_size")
"""What architectures call the number of tokens that a token attends to, where they choose these by a score."""
_FIRST = "original_max_position_embeddings"


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence, in tokens, or None where the architecture sets no limit.

    Above some lengths what transformers computes for a row depends on the rows beside it or on what follows. Those are
    limits too: where rotary positions of the kinds `dynamic` and `longrope` begin to be scaled by the longest row of a
    batch, and where a token begins to attend to some tokens alone, chosen by scores of which many are the same.
    """
    text = config.get_text_config()
    tables = [getattr(text, name, None) for name in _LIMITS]
    known = [limit for limit in (*tables, _independent(text)) if isinstance(limit, int)]
    return min(known, default=None)


def require_context(config: PretrainedConfig, needed: int, what: str) -> None:
    """Raise UserError where sequences of ``needed`` tokens do not fit the model; ``what`` names the settings."""
    context = context_of(config)
    if context is not None and needed > context:
        depends = _independent(config.get_text_config()) == context
        why = ", above which its numbers for a row depend on the rows beside it" if depends else ""
        raise beyond_context(what, needed, context, why)


def _independent(config: PretrainedConfig) -> int | None:
    """The length up to which a row's numbers are its own; None where they always are."""
    limits = [getattr(config, name, None) for name in _CHOSEN]
    found = [limit for limit in (*limits, _unscaled(config)) if isinstance(limit, int)]
    return min(found, default=None)


def _unscaled(config: PretrainedConfig) -> int | None:
    """The length up to which positions are not scaled by a batch's longest row; None where they never are."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    if not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds):
        return None
    first = [*(kind.get(_FIRST) for kind in kinds), getattr(config, _FIRST, None), config.max_position_embeddings]
    return next(length for length in first if length)
