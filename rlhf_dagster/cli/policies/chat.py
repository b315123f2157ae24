"""`rlhf chat`: a conversation with one policy in the terminal."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_dagster.cli.policies.generate import HowToDraw
from rlhf_dagster.cli.policies.shown import notes_on, printable
from rlhf_dagster.cli.which_loop import open_to_read
from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.inference.answers import OpenPolicy, open_policy
from rlhf_dagster.loop.inference.named_policy import named_policy
from rlhf_dagster.records.chats import Chat, Message

RESET = "/reset"
_ASK = "you> "


@dataclass
class Conversation:
    """What was said so far. Each answer has a seed of its own, so that a question asked twice is answered anew."""

    policy: OpenPolicy
    seed: int | None
    """Of the first answer; None takes the likeliest tokens."""
    sampling: SamplingSettings
    messages: list[Message] = field(default_factory=list)
    turns: int = 0

    def say(self, text: str) -> list[str]:
        """What is to be shown after the user has said ``text``: the answer, and notes on what was cut."""
        asked = [*self.messages, Message("user", text)]
        seed = None if self.seed is None else self.seed + self.turns
        found = self.policy.answer(Chat(tuple(asked)), seed, 1)
        self.turns += 1
        answer = found.answers[0].text
        self.messages = [*asked, Message("assistant", answer)]
        notes = [f"({note})" for note in notes_on(found, self.sampling)]
        return [printable(answer).strip() or "(empty)", *notes]


def chat_with(folder: Path, name: str, greedy: bool, seed: int | None) -> None:
    """Talk until the end of the input; raises UserError for a policy that reads texts and no chats."""
    chosen, loop = HowToDraw(1, greedy, seed).chosen_seed(), open_to_read(folder)
    policy = open_policy(loop, named_policy(loop, name))
    if not policy.reads_chats:
        raise UserError(
            f'{policy.policy_id} goes on with texts and reads no chats; ask it with `rlhf generate "TEXT" --policy '
            f"{name} {loop.option}`."
        )
    how = "the likeliest tokens" if chosen is None else f"seed {chosen}"
    print(f"{policy.policy_id}, {how}. {RESET} begins anew, Ctrl-D ends.")
    with suppress(ImportError):
        import readline  # noqa: F401  # lets people edit the line that they write
    converse(Conversation(policy, chosen, loop.config.sampling))


def converse(talk: Conversation, ask: Callable[[str], str] = input, show: Callable[[str], object] = print) -> None:
    """Ask and answer until the input ends."""
    while True:
        try:
            said = ask(_ASK).strip()
        except (EOFError, KeyboardInterrupt):
            show("")
            return
        if said == RESET:
            talk.messages = []
            show("(forgotten)")
        elif said:
            for line in talk.say(said):
                show(line)
