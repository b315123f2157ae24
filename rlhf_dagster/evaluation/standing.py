"""What has become of a round's policy: the sentence that its report begins with, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Colour = Literal["pass", "fail", "warn"]


@dataclass(frozen=True)
class Standing:
    """True at one moment; a later decision makes another one."""

    sentence: str
    colour: Colour
    """``pass``: the policy is the champion. ``fail``: it was refused or rolled back. ``warn``: something is waited for,
    or another policy has taken its place."""
    rules: Sequence[Mapping[str, str]]
    """The verdicts of the gate's rules behind it: ``rule``, ``outcome`` and ``sentence`` of each."""
    notes: Sequence[str] = ()
    """What else is on record, such as a person's reason."""


def before_people(policy_id: str, passed: bool, asks_people: bool, rules: Sequence[Mapping[str, Any]]) -> Standing:
    """Of a policy that only the automatic rules of the gate have judged."""
    if not passed:
        sentence = f"{policy_id} was refused by the automatic rules of the gate; nobody is asked to judge it."
        return Standing(sentence, "fail", rules)
    waits = "waits for people to judge it" if asks_people else "is not decided yet"
    return Standing(f"{policy_id} passes the automatic rules of the gate and {waits}.", "warn", rules)
