"""What judges have answered, kept in a store so that nothing is asked twice, and the budget of requests."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from uuid import uuid4

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.judge.server import Reply
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.storage.base import Store

ANSWERS, SPENT = "answers/given", "answers/spent"
"""Folders of a store: an object for each answer, and one for each request that was made."""
_READABLE = 120
"""Characters of a question's end that an answer's file repeats, for people who look into it."""


@dataclass(frozen=True)
class Question:
    """What a model is asked: its name, the request's further fields, and the messages.

    Two equal questions have one answer, whichever server gives it.
    """

    model: str
    parameters: dict[str, Any]
    messages: Sequence[dict[str, str]]

    @property
    def key(self) -> str:
        return content_hash("judge", self.model, self.parameters, list(self.messages))

    @property
    def body(self) -> dict[str, Any]:
        """The request's."""
        return {**self.parameters, "model": self.model, "messages": list(self.messages)}

    def corrected(self, reply: str, problem: str) -> "Question":
        """The question that follows an answer with a ``problem``."""
        told = f"This answer cannot be used: {problem}. Answer again, in the form that was asked for and nothing else."
        more = [{"role": "assistant", "content": reply or "(no answer)"}, {"role": "user", "content": told}]
        return Question(self.model, self.parameters, [*self.messages, *more])


@dataclass(frozen=True)
class AnswerStore:
    """Replies by question. Several processes can use it at the same time."""

    store: Store

    def get(self, question: Question) -> Reply | None:
        """What was answered; None where it was not asked, or where the answer's file is damaged."""
        key = _key_of(question)
        found = self.store.get(key)
        if found is None:
            return None
        try:
            record = unseal(found.data, key)
            return Reply(record["text"], record["refusal"], record["tokens"])
        except (Damaged, KeyError):
            return None

    def put(self, question: Question, reply: Reply) -> None:
        record = {"model": question.model, "asked": json.dumps(question.messages[-1]["content"])[-_READABLE:]}
        record |= {"text": reply.text, "refusal": reply.refusal}
        self.store.put(_key_of(question), seal(record | {"tokens": reply.tokens}))


def _key_of(question: Question) -> str:
    return f"{ANSWERS}/{question.key[:2]}/{question.key}.json"


class BudgetSpent(UserError):  # noqa: N818  # spent is what it is
    """All requests that the settings allow were made."""


@dataclass
class Budget:
    """At most ``most`` requests for ``purpose``, by all processes that share a store, now and in earlier tries.

    A request is counted before it is made, so that a process that is killed in between has counted one too many, never
    one too few.
    """

    store: Store
    purpose: str
    most: int
    _next: int = 0
    _free: list[int] = field(default_factory=list)
    _taken: set[str] | None = None
    _lock: Any = field(default_factory=Lock, repr=False)

    def take(self) -> int:
        """The number of a request that may be made; raises BudgetSpent where there is none."""
        with self._lock:
            return self._free.pop() if self._free else self._claim()

    def give_back(self, number: int) -> None:
        """Say that a request was turned away, so that its number is used for another."""
        with self._lock:
            self._free.append(number)

    def close(self) -> None:
        """Count no request that was not made."""
        with self._lock:
            for number in self._free:
                self.store.delete(self._key(number))
            self._next = min([self._next, *self._free])
            self._free.clear()

    def spent(self) -> int:
        """How many requests were made."""
        return len(self.store.list(f"{SPENT}/{self.purpose}")) - len(self._free)

    def _claim(self) -> int:
        if self._taken is None:
            self._taken = set(self.store.list(f"{SPENT}/{self.purpose}"))
        while self._next < self.most:
            number, self._next = self._next, self._next + 1
            if self._key(number) not in self._taken and self.store.create(self._key(number), _mark()):
                return number
        raise BudgetSpent(
            f"The judge's budget of {self.most:,} requests (`service.max_requests`) is used up; raise it and run the "
            "same again: it goes on where it was, and what was answered is not asked again."
        )

    def _key(self, number: int) -> str:
        return f"{SPENT}/{self.purpose}/{number:08d}.json"


def _mark() -> bytes:
    """Data that tell their writer, as creating asks for."""
    return seal({"request": uuid4().hex})
