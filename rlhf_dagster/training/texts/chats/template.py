"""What a tokenizer's chat template writes around the contents of messages, and what is noticeable about it.

A template is rendered with a placeholder in place of each content. So its own text, which may hold control tokens, is
told from the contents, which are text whatever is written in them; and a content that it leaves out is seen.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.texts.chats.rendering import TemplateBoundError, TemplateFailedError, render

DATE = datetime(2024, 7, 26)
"""Today, for templates that print it: what is trained on one day is the same on the next. Llama 3.1's own default."""
_OTHER_DATE = datetime(2031, 11, 5)
_TODAY, _DIRECTIVES = "strftime_now", "aAbBdHIjmMpSyY"
_NEWLINE, _SPACE = "\n", "\u2003"
"""What is put beside a placeholder, to see what the template strips."""
_LEFT, _RIGHT = _NEWLINE + _SPACE, _SPACE + _NEWLINE
_STRIPS: dict[str, Callable[[str], str]] = {_LEFT: str, _SPACE: lambda text: text.lstrip("\n"), "": str.lstrip}
"""By what is left of `_LEFT`: what the template does to the beginning of a content."""
_TRIMS: dict[str, Callable[[str], str]] = {_RIGHT: str, _SPACE: lambda text: text.rstrip("\n"), "": str.rstrip}


class TemplateFinding(NamedTuple):
    """Something about a chat template that one should know."""

    name: str
    """no_template, no_single_turn, reads_parts, prints_date, no_system, merges_system, one_turn or alternates."""
    sentence: str
    is_fatal: bool
    """Whether no prompt can be read as a chat."""


class UnfitTemplateError(Exception):
    """What a template does with messages that it cannot write, as the beginning of a sentence."""


class Slot(NamedTuple):
    """The place of a content in what a template writes."""

    message: int
    """Index of the message."""
    start: Callable[[str], str]
    """What the template does to the content's beginning: it strips it, or not."""
    end: Callable[[str], str]

    def fill(self, contents: Sequence[str]) -> str:
        return self.end(self.start(contents[self.message]))


@dataclass(frozen=True)
class Layout:
    """What a template writes for messages of some roles: its own texts, and slots for the contents."""

    parts: tuple[str | Slot, ...]

    @property
    def own(self) -> list[str]:
        """The template's own texts."""
        return [part for part in self.parts if isinstance(part, str)]

    @property
    def tail(self) -> str:
        """What comes after the last content."""
        return self.parts[-1] if isinstance(self.parts[-1], str) else ""


def layout_of(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], *, opened: bool = True) -> Layout:
    """What the template writes for messages of these ``roles``, with the assistant's turn ``opened`` behind them.

    Raises:
        UnfitTemplateError: there is no template, it does not take these roles, or it drops or changes a content.
    """
    if tokenizer.chat_template is None:
        raise UnfitTemplateError("the tokenizer has no chat template")
    named = "a chat of " + ", ".join(roles)
    try:
        return _layout(tokenizer, roles, opened, DATE)
    except UnfitTemplateError as error:
        raise UnfitTemplateError(f"the chat template {error} in {named}") from None
    except TemplateError as error:
        raise UnfitTemplateError(f"the chat template does not take {named} ({first_line(error)})") from None
    except TemplateFailedError as error:
        raise UnfitTemplateError(f"the chat template fails on {named} ({error})") from None


def template_findings(tokenizer: PreTrainedTokenizerBase) -> list[TemplateFinding]:
    """What is noticeable about the chat template of ``tokenizer``, a sentence each; empty where it is as most are."""
    if tokenizer.chat_template is None:
        return [TemplateFinding("no_template", "The tokenizer has no chat template.", True)]
    problem = _problem_with(tokenizer, ["user"])
    if problem is not None:
        return [TemplateFinding("no_single_turn", f"{problem[0].upper()}{problem[1:]}.", True)]
    found = [_parts_finding(tokenizer), _date_finding(tokenizer), _system_finding(tokenizer), _turns_finding(tokenizer)]
    return [finding for finding in found if finding is not None]


def _parts_finding(tokenizer: PreTrainedTokenizerBase) -> TemplateFinding | None:
    if not _reads_parts(tokenizer, ["user"]):
        return None
    sentence = "The chat template reads contents as lists of parts; each content is given to it as one part of text."
    return TemplateFinding("reads_parts", sentence, False)


def _date_finding(tokenizer: PreTrainedTokenizerBase) -> TemplateFinding | None:
    roles = _roles_taken(tokenizer)
    if _layout(tokenizer, roles, True, DATE).own == _layout(tokenizer, roles, True, _OTHER_DATE).own:
        return None
    sentence = (
        f"The chat template prints today's date; here it is always {DATE:%d %B %Y}, so that token ids stay the same."
    )
    return TemplateFinding("prints_date", sentence, False)


def _roles_taken(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A system's message before the user's, where the template takes one."""
    return ["system", "user"] if _problem_with(tokenizer, ["system", "user"]) is None else ["user"]


def _system_finding(tokenizer: PreTrainedTokenizerBase) -> TemplateFinding | None:
    problem = _problem_with(tokenizer, ["system", "user"])
    if problem is not None:
        sentence = f"The chat template has no system's turn: {problem}; a chat that begins with one is refused."
        return TemplateFinding("no_system", sentence, False)
    if not _is_merged(layout_of(tokenizer, ["system", "user"]), layout_of(tokenizer, ["user"])):
        return None
    sentence = "The chat template puts the system's message into the first user's turn."
    return TemplateFinding("merges_system", sentence, False)


def _is_merged(both: Layout, user: Layout) -> bool:
    """Whether the system's content stands where a user's does, with white space alone behind it."""
    opening, between = _own_at(both, 0), _own_at(both, 2)
    return opening.startswith(_own_at(user, 0)) and not between.strip()


def _own_at(layout: Layout, index: int) -> str:
    part = layout.parts[index] if index < len(layout.parts) else ""
    return part if isinstance(part, str) else ""


def _turns_finding(tokenizer: PreTrainedTokenizerBase) -> TemplateFinding | None:
    problem = _problem_with(tokenizer, ["user", "assistant", "user"])
    if problem is not None:
        sentence = f"The chat template takes no second turn: {problem}; chats of several turns are refused."
        return TemplateFinding("one_turn", sentence, False)
    problem = _problem_with(tokenizer, ["user", "user"])
    if problem is None:
        return None
    sentence = f"In the chat template user and assistant take turns: {problem}; other chats are refused."
    return TemplateFinding("alternates", sentence, False)


def _problem_with(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> str | None:
    try:
        layout_of(tokenizer, roles)
    except UnfitTemplateError as error:
        return str(error)
    return None


def _layout(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], opened: bool, date: datetime) -> Layout:
    names = _placeholders(len(roles))
    in_parts = _reads_parts(tokenizer, roles)
    plain = _pieces(_rendered(tokenizer, roles, names, opened, date, in_parts), names)
    padded = [f"{_LEFT}{name}{_RIGHT}" for name in names]
    around = _pieces(_rendered(tokenizer, roles, padded, opened, date, in_parts), names)
    missing = sorted(set(range(len(roles))) - {piece for piece in plain if isinstance(piece, int)})
    if missing:
        raise UnfitTemplateError(f"drops the text of message {missing[0] + 1} ({roles[missing[0]]})")
    return Layout(tuple(_slots(plain, around)))


def _slots(plain: list[str | int], padded: list[str | int]) -> list[str | Slot]:
    """The parts of a layout, from renderings without and with white space beside each placeholder."""
    if plain[1::2] != padded[1::2]:
        raise UnfitTemplateError("changes what it writes with the white space in a content")
    sides = [_left_over(str(one), str(other)) for one, other in zip(plain[::2], padded[::2], strict=True)]
    parts: list[str | Slot] = []
    for index, piece in enumerate(plain):
        if isinstance(piece, int):
            before, after = sides[index // 2], sides[index // 2 + 1]
            parts.append(Slot(piece, _STRIPS[before[1]], _TRIMS[after[0]]))
        elif piece:
            parts.append(piece)
    return parts


def _left_over(own: str, padded: str) -> tuple[str, str]:
    """What is left of the white space of the content before and of the content after the template's ``own`` text."""
    for right, left in product(_TRIMS, _STRIPS):
        if right + own + left == padded:
            return right, left
    raise UnfitTemplateError("changes contents")


def _pieces(text: str, names: Sequence[str]) -> list[str | int]:
    """The template's own texts, with the index of a message between each two of them."""
    pieces: list[str | int] = [*re.split("|".join(map(re.escape, names)), text)]
    found = [names.index(name) for name in re.findall("|".join(map(re.escape, names)), text)]
    return [piece for pair in zip(pieces, [*found, -1], strict=True) for piece in pair][:-1]


def _placeholders(count: int) -> list[str]:
    """Names of contents: letters and digits, which templates write as they are. None is a part of another."""
    return [f"content{index}of{count}is7q3x" for index in range(count)]


def _reads_parts(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str]) -> bool:
    """Whether the template writes contents only where they are lists of parts."""
    as_text, as_parts = (_writes_all(tokenizer, roles, in_parts) for in_parts in (False, True))
    return as_parts and not as_text


def _writes_all(tokenizer: PreTrainedTokenizerBase, roles: Sequence[str], in_parts: bool) -> bool:
    names = _placeholders(len(roles))
    try:
        written = _rendered(tokenizer, roles, names, True, DATE, in_parts)
    except TemplateBoundError:
        raise
    except (TemplateError, TemplateFailedError):
        return False
    return all(name in written for name in names)


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    roles: Sequence[str],
    contents: Sequence[str],
    opened: bool,
    date: datetime,
    in_parts: bool,
) -> str:
    given: list[dict[str, Any]] = [
        {"role": role, "content": [{"type": "text", "text": content}] if in_parts else content}
        for role, content in zip(roles, contents, strict=True)
    ]
    template = _dated(str(tokenizer.get_chat_template()), date)
    return render(template, given, opened, tokenizer.special_tokens_map)


def _dated(template: str, date: datetime) -> str:
    """A template in which today is ``date``: the function that templates ask, transformers' own, is defined anew."""
    if _TODAY not in template:
        return template
    filters = "".join(f" | replace('%{letter}', '{date.strftime(f'%{letter}')}')" for letter in _DIRECTIVES)
    # The block at the end takes the line break with it, so that the template begins on a line of its own.
    return f"{{% macro {_TODAY}(form) %}}{{{{ form | replace('%-', '%'){filters} }}}}{{% endmacro %}}\n{template}"
