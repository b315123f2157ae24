"""Asking a judge many questions: several at once, at a pace, again where the server is away or makes no sense."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rlhf_dagster.config.judging.judge import JudgeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.judge.answers import AnswerStore, Budget, Question
from rlhf_dagster.judge.server import JudgeAway, JudgeServer, Reply
from rlhf_dagster.storage.base import Store

if TYPE_CHECKING:
    import httpx

FIRST_WAIT = 1.0
"""Seconds before a request is sent again for the first time."""
_SHOWN = 80
_Read = TypeVar("_Read")
ChatMessages = list[dict[str, str]]
"""Of a chat: each has `role` and `content`."""


class UnreadableAnswer(ValueError):  # noqa: N818  # what an answer is
    """An answer is not in the form that was asked for; the message says how, without a full stop."""


class _Over(Exception):  # noqa: N818
    """Another question has failed, so that this one is not asked any more."""


@dataclass(frozen=True)
class JudgeAnswer(Generic[_Read]):
    """What was read of a judge's answer, or the problem with its last one."""

    value: _Read | None
    problem: str = ""
    said: str = ""
    """The last answer as it came."""


@dataclass
class Pace:
    """Moments at least ``60 / per_minute`` seconds apart; None: at once."""

    per_minute: float | None
    _next: float = 0.0
    _lock: Any = field(default_factory=Lock, repr=False)

    def wait(self) -> float:
        """Seconds until the next moment, which is given to whoever asked."""
        if self.per_minute is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            moment = max(now, self._next)
            self._next = moment + 60 / self.per_minute
        return moment - now


@dataclass
class Judge:
    """A judge's model behind ``server``, whose answers are kept, and whose requests are counted.

    ``share`` is this process's part of what the settings allow for all processes together.
    """

    settings: JudgeSettings
    server: JudgeServer
    answers: AnswerStore
    budget: Budget
    share: float = 1.0
    _pace: Pace = field(init=False)
    _over: Event = field(default_factory=Event, repr=False)
    """Set where nothing more is to be asked, since another question has failed."""

    def __post_init__(self) -> None:
        limit = self.settings.service.requests_per_minute
        self._pace = Pace(None if limit is None else limit * self.share)

    @classmethod
    def of(cls, settings: JudgeSettings, store: Store, purpose: str, share: float = 1.0) -> "Judge":
        """A judge of texts for ``purpose``, which has a budget of its own.

        Raises UserError where the environment names no server.
        """
        budget = Budget(store, purpose, settings.service.max_requests)
        return cls(settings, JudgeServer.of(settings.service), AnswerStore(store), budget, share)

    def ask(
        self, questions: Sequence[Sequence[dict[str, str]]], read: Callable[[str], _Read]
    ) -> list[JudgeAnswer[_Read]]:
        """The answers to ``questions``, a list of messages each, in their order.

        ``read`` reads an answer, or raises :class:`UnreadableAnswer`. What was answered before is not asked again, and
        what is answered now is kept at once, also where another question fails.

        Raises:
            BudgetSpent: more requests would be needed than the settings allow.
            UserError: the server stays away, or does not accept the requests.
        """
        asked = [Question(self.settings.model, self.settings.parameters, messages) for messages in questions]
        different = {question.key: question for question in asked}
        with self._asking() as client:
            found = self._all(different, lambda question: self._unless_over(client, question, read))
        return [found[question.key] for question in asked]

    @contextmanager
    def _asking(self) -> "Iterator[httpx.Client]":
        try:
            with self.server.connect() as client:
                yield client
        finally:
            self.budget.close()

    def _all(
        self, questions: Mapping[str, Question], answer: Callable[[Question], JudgeAnswer[_Read]]
    ) -> dict[str, JudgeAnswer[_Read]]:
        """Answers by key. After the first failure nothing more is asked; what is under way is waited for and kept."""
        at_once = max(1, int(self.settings.service.at_once * self.share))
        self._over.clear()
        with ThreadPoolExecutor(at_once, "judge") as pool:
            try:
                running = {key: pool.submit(answer, question) for key, question in questions.items()}
                wait(running.values(), return_when=FIRST_EXCEPTION)
            finally:
                self._over.set()
                pool.shutdown(cancel_futures=True)
        _raise_first_failure(running.values())
        return {key: future.result() for key, future in running.items()}

    def _unless_over(
        self, client: "httpx.Client", question: Question, read: Callable[[str], _Read]
    ) -> JudgeAnswer[_Read]:
        try:
            return self._answer(client, question, read)
        except BaseException:
            # Here, since before the caller hears of it this thread may have begun with the next question.
            self._over.set()
            raise

    def _answer(self, client: "httpx.Client", question: Question, read: Callable[[str], _Read]) -> JudgeAnswer[_Read]:
        problem = said = ""
        for _ in range(self.settings.tries):
            reply = self.answers.get(question) or self._reply(client, question)
            said, problem = reply.text, reply.refusal
            if not problem:
                try:
                    return JudgeAnswer(read(said), "", said)
                except UnreadableAnswer as unreadable:
                    problem = str(unreadable)
            question = question.corrected(said, problem)
        return JudgeAnswer(None, problem, said)

    def _reply(self, client: "httpx.Client", question: Question) -> Reply:
        """The server's reply, asked for again and again while it is away; kept before it is given."""
        for failures in range(self.settings.service.retries + 1):
            self._sleep(self._pace.wait())
            number = self.budget.take()
            try:
                reply = self.server.ask(client, question.body)
            except JudgeAway as away:
                self._after(away, number, failures)
            except UserError:
                self.budget.give_back(number)
                raise
            else:
                self.answers.put(question, reply)
                return reply
        raise AssertionError("the last failure is raised")

    def _after(self, away: JudgeAway, number: int, failures: int) -> None:
        """Wait before a request is sent again; raises a UserError where it was sent often enough."""
        if not away.billed:
            self.budget.give_back(number)
        longest = self.settings.service.longest_wait
        seconds = min(FIRST_WAIT * 2**failures, longest) if away.wait is None else away.wait
        if failures == self.settings.service.retries:
            raise given_up(away, "after one try" if failures == 0 else f"after {failures + 1} tries")
        if seconds > longest:
            raise given_up(away, f"since it asks to wait {seconds:.0f} s (`service.longest_wait` is {longest:g} s)")
        self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise _Over


def _raise_first_failure(futures: Iterable[Future[Any]]) -> None:
    """Raise what ended one of ``futures``, unless it only ended because another one had failed."""
    errors = [future.exception() for future in futures if not future.cancelled()]
    error = next((one for one in errors if one is not None and not isinstance(one, _Over)), None)
    if error is not None:
        raise error


def given_up(away: JudgeAway, why: str) -> UserError:
    """The sentence for a server that is not asked any more."""
    return UserError(
        f"{str(away).rstrip('.')}; given up {why}. Run the same again once it answers: what was answered is kept and "
        "not asked again."
    )


def shown(text: str) -> str:
    """The beginning of a text, for a sentence about it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
