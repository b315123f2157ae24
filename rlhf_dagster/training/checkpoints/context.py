"""The longest sequence that a model reads, from its config."""

from transformers import PretrainedConfig

from rlhf_dagster.errors import UserError

_LIMITS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
"""What architectures call the length of their tables of positions."""
_FIRST = "original_max_position_embeddings"


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence, in tokens, or None where the architecture sets no limit.

    Rotary positions of the kinds `dynamic` and `longrope` are scaled by the longest row of a batch once it is longer
    than what the model was first trained on: a row's numbers then depend on the rows beside it. That length is the
    limit here.
    """
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in _LIMITS]
    known = [limit for limit in (*limits, _unscaled(text)) if isinstance(limit, int)]
    return min(known, default=None)


def _unscaled(config: PretrainedConfig) -> int | None:
    """The length up to which positions are not scaled by a batch's longest row; None where they never are."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    if not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds):
        return None
    first = [*(kind.get(_FIRST) for kind in kinds), getattr(config, _FIRST, None), config.max_position_embeddings]
    return next(length for length in first if length)


def require_context(config: PretrainedConfig, needed: int, what: str) -> None:
    """Raise UserError where sequences of ``needed`` tokens do not fit the model; ``what`` names the settings."""
    context = context_of(config)
    if context is not None and needed > context:
        unscaled = _unscaled(config.get_text_config()) == context
        why = ", above which its numbers for a row depend on the rows beside it" if unscaled else ""
        raise UserError(f"{what} needs {needed} tokens but the model's context has {context}{why}; lower it.")
