"""Prompts as chats in the template of a tokenizer: a text as a user's turn, messages as they are.

Whether prompts are chats is a property of a checkpoint, kept in its tokenizer's config: SFT sets it, every model made
from that checkpoint inherits it with the tokenizer, and so a prompt is read in one way wherever it is encoded.

Contents are text: a control token that is written in a message is no control token (:class:`PartReader`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import cast

from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Chat, Message, Prompt
from rlhf_dagster.training.texts.chats.ends import set_ends
from rlhf_dagster.training.texts.chats.template import Layout, Slot, UnfitTemplateError, layout_of
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.special_tokens import ALLOWED, encode_text

MARK = "prompts_are_chats"


def set_chat(tokenizer: PreTrainedTokenizerBase, chat: bool, ends: Iterable[int] = ()) -> None:
    """Have ``tokenizer`` read prompts as chats from now on, also once it is saved and opened again, or as plain text.

    A response ends with what ends the assistant's turn in the template, or with end-of-text; ``ends`` are further ids
    that end it, those of the base model's generation config.

    Raises:
        UserError: the tokenizer has no chat template, or one that a single user's turn does not fit.
    """
    tokenizer.init_kwargs.pop(MARK, None)
    set_ends(tokenizer, tokenizer.eos_token_id, ends)
    if not chat:
        return
    try:
        layout_of(tokenizer, ["user"])
    except UnfitTemplateError as problem:
        raise UserError(f"sft.chat is true, but {problem}; set it to false, or mend the template.") from None
    tokenizer.init_kwargs[MARK] = True
    set_ends(tokenizer, _end_of_turn(tokenizer), ends)


def reads_chats(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether prompts are to be encoded by :func:`encode_chats`."""
    return bool(tokenizer.init_kwargs.get(MARK))


def require_texts(prompts: Sequence[Prompt]) -> list[str]:
    """``prompts`` of a checkpoint that reads plain text; raises UserError where one is a chat."""
    chats = sum(isinstance(prompt, Chat) for prompt in prompts)
    if chats:
        raise UserError(
            f"{chats:,} of {len(prompts):,} prompts are lists of messages, and this model reads plain text; give "
            "texts, or train the SFT model with `sft.chat: true` from a base model that has a chat template."
        )
    return [str(prompt) for prompt in prompts]


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_tokens: int, cuts: Cuts | None = None
) -> list[list[int]]:
    """Ids of each prompt and the opening of the assistant's turn, at most ``max_tokens``; a text is a user's turn.

    A chat that is too long loses its oldest turns, but for the system's, and then the beginning of what is left of
    them; the template stays whole. ``cuts`` counts what is lost.

    Raises:
        UserError: the template does not take a prompt's messages, or is longer than ``max_tokens`` by itself.
    """
    encoder = _Encoder(tokenizer, max_tokens)
    encoded = []
    for prompt in prompts:
        whole, ids = encoder.encode(_messages(prompt))
        encoded.append(ids)
        if cuts is not None:
            cuts.prompts.count(whole, len(ids))
    return encoded


class PartReader:
    """Reads texts one after the other, of which those marked true may hold control tokens and the others are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = str(tokenizer.get_chat_template())
        self.tokenizer = tokenizer
        self.names = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content.strip() and token.content in template)
        }
        """Control tokens: those marked as special, and those added ones that the template writes."""
        self.control = set(self.names.values()) - {tokenizer.unk_token_id}
        """Their ids; a word that no token stands for is none."""

    def read(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of all ``parts``: the tokenizer's own, unless it finds a control token where none may be."""
        whole = self.as_written("".join(text for text, _ in parts))
        wanted = [token for text, own in parts if own for token in self.control_in(self.as_written(text))]
        if self.tokenizer.init_kwargs.get(ALLOWED) or self.control_in(whole) == wanted:
            return whole
        return [token for ids in self._apart(parts) for token in ids]

    def control_in(self, ids: Iterable[int]) -> list[int]:
        """Those of ``ids`` that are control tokens."""
        return [token for token in ids if token in self.control]

    def as_written(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _apart(self, parts: Sequence[tuple[str, bool]]) -> Iterator[list[int]]:
        """Ids of each control token, and of each text between two of them, which is read as one."""
        for is_control, run in groupby(self._split(parts), key=lambda piece: piece[1]):
            texts = [text for text, _ in run]
            if is_control:
                yield [self.names[text] for text in texts]
            else:
                yield encode_text(self.tokenizer, ["".join(texts)])[0]

    def _split(self, parts: Iterable[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
        """Texts and, each by itself and marked true, the control tokens in those parts that may hold them."""
        pattern = "|".join(re.escape(name) for name in sorted(self.names, key=len, reverse=True))
        for text, own in parts:
            pieces = re.split(f"({pattern})", text) if own else [text]
            yield from ((piece, own and index % 2 == 1) for index, piece in enumerate(pieces) if piece)


class _Encoder:
    """Encodes chats of a table; what the template writes for some roles is rendered once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens, self.reader = tokenizer, max_tokens, PartReader(tokenizer)
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def encode(self, messages: Sequence[Message]) -> tuple[int, list[int]]:
        """The length of all messages, and the ids of those that fit."""
        ids = self._read(messages)
        whole = len(ids)
        for shorter in _without_oldest(messages):
            if len(ids) <= self.max_tokens:
                break
            messages, ids = shorter, self._read(shorter)
        return whole, ids if len(ids) <= self.max_tokens else self._shortened(messages, ids)

    def _shortened(self, messages: Sequence[Message], ids: list[int]) -> list[int]:
        """The last question, and the system's message where there is one, without its or their beginning."""
        for index in (len(messages) - 1, 0):
            content = encode_text(self.tokenizer, [messages[index].content])[0]
            while (excess := len(ids) - self.max_tokens) > 0 and content:
                content = content[excess:]
                messages = _with_content(messages, index, self._text(content))
                ids = self._read(messages)
        if len(ids) > self.max_tokens:
            raise UserError(
                f"sampling.prompt_tokens is {self.max_tokens} and the chat template alone takes {len(ids)}; raise it."
            )
        return ids

    def _text(self, ids: list[int]) -> str:
        text = str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        return text.lstrip("\ufffd")  # the rest of a character that was cut in two

    def _read(self, messages: Sequence[Message]) -> list[int]:
        contents = [message.content for message in messages]
        layout = self._layout(tuple(message.role for message in messages))
        parts = [(part.fill(contents), False) if isinstance(part, Slot) else (part, True) for part in layout.parts]
        return self.reader.read(parts)

    def _layout(self, roles: tuple[str, ...]) -> Layout:
        if roles not in self._layouts:
            try:
                self._layouts[roles] = layout_of(self.tokenizer, roles)
            except UnfitTemplateError as problem:
                raise UserError(f"A prompt cannot be read: {problem}; leave out or change such prompts.") from None
        return self._layouts[roles]


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    return prompt.messages if isinstance(prompt, Chat) else (Message("user", prompt),)


def _without_oldest(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The messages without their first exchange after the system's, then without the next, as long as a user's is left.

    What is kept begins with a user's message, as templates want it.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    for start in range(len(system) + 1, len(messages)):
        if messages[start].role == "user":
            yield [*system, *messages[start:]]


def _with_content(messages: Sequence[Message], index: int, content: str) -> list[Message]:
    return [Message(message.role, content) if place == index else message for place, message in enumerate(messages)]


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The control token that the template writes behind an assistant's content; end-of-text where there is none."""
    try:
        tail = layout_of(tokenizer, ["user", "assistant"], opened=False).tail
    except UnfitTemplateError:
        return int(tokenizer.eos_token_id)
    reader = PartReader(tokenizer)
    end = next(iter(reader.control_in(reader.as_written(tail))), tokenizer.eos_token_id)
    if end == tokenizer.pad_token_id:
        raise UserError(
            "sft.chat: the tokenizer pads with the token that ends the assistant's turn, so that no policy would learn "
            "to stop; give it a padding token of its own."
        )
    return int(end)
