"""Chat templates that compute for ever or reach for files, and texts that would open turns of their own."""

from functools import partial

from benchmarks.hostile.case import Case, Place, rlhf, tests_of
from benchmarks.hostile.checkpoints import made

CHATS = tests_of("training/test_chat_template.py")
BY_COMMAND = ("loops in loops", "a long text", "texts that double", "Python", "itself", "too many of its own")


def set_as_chat(template: str, place: Place) -> None:
    tokenizer = CHATS.chat_tokenizer(template + CHATS.CHATML)
    CHATS.set_chat(tokenizer, True)


def in_a_checkpoint(template: str, place: Place) -> None:
    (made(place) / "chat_template.jinja").write_text(template + CHATS.CHATML)


def checked(place: Place) -> None:
    """The model may be used, though not for chats."""
    rlhf("check-model", place.folder / "model")


CASES: list[Case] = [
    *(
        Case(name, partial(set_as_chat, template), says="sft.chat is true, but the chat template")
        for name, template in CHATS.HOSTILE_TEMPLATES.items()
    ),
    *(
        Case(
            f"{name}, in a checkpoint", checked, partial(in_a_checkpoint, CHATS.HOSTILE_TEMPLATES[name]), harmless=True
        )
        for name in BY_COMMAND
    ),
    *(
        Case(
            f"{family} is given {text!r}",
            lambda _, family=family, text=text: CHATS.test_control_tokens_in_contents_open_no_turn(family, text),
            harmless=True,
        )
        for family in CHATS.FAMILIES
        for text in CHATS.HOSTILE
    ),
]
