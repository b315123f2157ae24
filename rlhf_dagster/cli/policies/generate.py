"""`rlhf generate`: one prompt, answered by one policy or by several beside each other."""

import json
import secrets
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.cli.policies.shown import notes_on, printable
from rlhf_dagster.cli.which_loop import open_to_read
from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.answers import PolicyAnswers, open_policy
from rlhf_dagster.loop.inference.named_policy import named_policy
from rlhf_dagster.records.chats import Prompt, messages_of

_SEEDS = 2**31
_STDIN = "-"


@dataclass(frozen=True)
class HowToDraw:
    n: int = 1
    greedy: bool = False
    seed: int | None = None
    """One that nobody has chosen where it is None; the answers say it."""

    def chosen_seed(self) -> int | None:
        """The seed of this call; None where the likeliest tokens are taken. Raises UserError for what excludes it."""
        if self.greedy and (self.n > 1 or self.seed is not None):
            raise UserError("--greedy takes the likeliest token each time: leave -n and --seed out.")
        if self.greedy:
            return None
        return secrets.randbelow(_SEEDS) if self.seed is None else self.seed


def generate_answers(folder: Path, prompt: str, names: Sequence[str], how: HowToDraw, as_json: bool) -> None:
    """Print the answers of the policies called ``names`` to a prompt, all of them drawn with the same seed."""
    seed, asked = how.chosen_seed(), read_prompt(prompt)
    loop = open_to_read(folder)
    policies = _different(loop, names)
    rows = []
    for name, checkpoint in policies.items():
        # One after the other, so that only one model is in memory.
        found = open_policy(loop, checkpoint).answer(asked, seed, how.n)
        rows.append({"name": name, "policy": checkpoint.model_id, **asdict(found)})
        if not as_json:
            _show(name, checkpoint, seed, found)
        for note in notes_on(found, loop.config.sampling):
            print(f"{name}: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(_as_json(asked, seed, rows), indent=1))


def read_prompt(given: str) -> Prompt:
    """A prompt from the command line, `-` for standard input; a JSON list of messages is a chat.

    Raises UserError where there is a list of objects that are no messages, or where the last is not a user's.
    """
    text = _from_stdin() if given == _STDIN else given
    with suppress(ValueError):
        value = parse_json(text)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return _chat(value)
    return text


def _from_stdin() -> str:
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")


def _chat(messages: list[Any]) -> Prompt:
    try:
        return prompt_in({"prompt": messages})
    except BadLineError as error:
        raise UserError(f"The prompt cannot be read: {error}.") from None


def _different(loop: LoopFolder, names: Sequence[str]) -> dict[str, Checkpoint]:
    """The policies by name; raises UserError where two names mean the same one."""
    found: dict[str, Checkpoint] = {}
    for name in names:
        checkpoint = named_policy(loop, name)
        same = next((other for other, one in found.items() if one.model_id == checkpoint.model_id), None)
        if same is not None:
            raise UserError(f"{name} and {same} are both {checkpoint.model_id}; leave one of them out.")
        found[name] = checkpoint
    return found


def _show(name: str, checkpoint: Checkpoint, seed: int | None, found: PolicyAnswers) -> None:
    how = "likeliest tokens" if seed is None else f"seed {seed}"
    title = name if name == checkpoint.model_id else f"{name}: {checkpoint.model_id}"
    print(f"{title} ({how})")
    for line in _lines(found):
        print(line)
    print(flush=True)


def _lines(found: PolicyAnswers) -> Iterator[str]:
    for number, answer in enumerate(found.answers, 1):
        mark = f"{number}. " if len(found.answers) > 1 else ""
        text = printable(answer.text).strip() or "(empty)"
        yield textwrap.indent(f"{mark}{text}", "  ")


def _as_json(prompt: Prompt, seed: int | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """``policies`` has a row for each policy: name, policy, answers (text, tokens, finish_reason) and unread."""
    return {"prompt": messages_of(prompt) or str(prompt), "seed": seed, "policies": rows}
