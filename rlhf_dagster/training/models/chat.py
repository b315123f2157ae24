"""Prompts as a user's turn in the chat template of a tokenizer.

Whether prompts are chats is a property of a checkpoint, kept in its tokenizer's config: SFT sets it, every model made
from that checkpoint inherits it with the tokenizer, and so a prompt is read in one way wherever it is encoded.
"""

from collections.abc import Sequence
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError

MARK = "prompts_are_chats"


def set_chat(tokenizer: PreTrainedTokenizerBase, chat: bool) -> None:
    """Have ``tokenizer`` read prompts as chats from now on, also once it is saved and opened again, or as plain text.

    Raises:
        UserError: the tokenizer has no chat template, or one that a single user's turn does not fit.
    """
    tokenizer.init_kwargs.pop(MARK, None)
    if not chat:
        return
    if tokenizer.chat_template is None:
        raise UserError("sft.chat is true but the base model's tokenizer has no chat template; set it to false.")
    try:
        _render(tokenizer, "")
    except TemplateError as error:
        raise UserError(
            f"sft.chat: the chat template takes no single user's turn ({error}); set it to false."
        ) from None
    tokenizer.init_kwargs[MARK] = True


def reads_chats(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are to be encoded by :func:`encode_chats`."""
    return bool(tokenizer.init_kwargs.get(MARK))


def encode_chats(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Ids of each prompt as a user's turn and the opening of the assistant's, at most ``max_tokens``.

    A prompt that is too long loses its beginning; the template stays whole. Raises UserError where the template alone
    is longer.
    """
    return [_fitting(tokenizer, prompt, max_tokens) for prompt in prompts]


def _fitting(tokenizer: PreTrainedTokenizerBase, prompt: str, max_tokens: int) -> list[int]:
    ids = _render(tokenizer, prompt)
    content = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    while (excess := len(ids) - max_tokens) > 0:
        if not content:
            raise UserError(
                f"sampling.prompt_tokens is {max_tokens} and the chat template alone takes {len(ids)}; raise it."
            )
        content = content[excess:]
        ids = _render(tokenizer, str(tokenizer.decode(content, clean_up_tokenization_spaces=False)))
    return ids


def _render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    turn = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=False)
    return cast("list[int]", ids)
