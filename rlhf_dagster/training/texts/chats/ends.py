"""Which tokens end a response.

They are a property of a checkpoint, kept in its tokenizer's config where they are others than end-of-text alone: a chat
model ends its turn with a token of its template, and `generation_config.json` may name further ones.
"""

from collections.abc import Iterable

from transformers import GenerationConfig, PreTrainedTokenizerBase

END = "response_end_id"
OTHER_ENDS = "other_response_end_ids"


def end_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that is put behind a response: end-of-text, or what ends the assistant's turn in a chat."""
    return int(tokenizer.init_kwargs.get(END, tokenizer.eos_token_id))


def other_ends_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Further ids that end a response where they are drawn."""
    return tuple(tokenizer.init_kwargs.get(OTHER_ENDS, ()))


def set_ends(tokenizer: PreTrainedTokenizerBase, end_id: int, others: Iterable[int]) -> None:
    """Keep what ends a response with ``tokenizer``, also once it is saved and opened again.

    Padding, which no policy draws, ends nothing, and neither does a token of ordinary text: a config that names one was
    made for another tokenizer.
    """
    for name in (END, OTHER_ENDS):
        tokenizer.init_kwargs.pop(name, None)
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    further = sorted(({*others} & control | {tokenizer.eos_token_id}) - {end_id, tokenizer.pad_token_id})
    if end_id != tokenizer.eos_token_id:
        tokenizer.init_kwargs[END] = end_id
    if further:
        tokenizer.init_kwargs[OTHER_ENDS] = further


def ends_in_config(config: GenerationConfig | None) -> list[int]:
    """The ids of a model's `eos_token_id`, which is a number, a list or null."""
    ids = None if config is None else config.eos_token_id
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
