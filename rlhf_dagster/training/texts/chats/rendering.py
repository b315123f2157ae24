"""What a chat template writes, rendered in a process of its own (:mod:`.renderer`), started when it is needed."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any, cast

from jinja2 import TemplateError

from rlhf_dagster.common.bounds.limits import MEBIBYTE, TEMPLATE_CHARACTERS, TEMPLATE_MIB, TEMPLATE_SECONDS
from rlhf_dagster.common.child_processes import plain_environment, python_command
from rlhf_dagster.training.texts.chats.renderer import ANSWER_FAILED, ANSWER_REFUSED, ANSWER_TEXT


class TemplateFailedError(Exception):
    """A template failed: the error in words."""


class TemplateBoundError(TemplateFailedError):
    """A template did not end within its bounds; trying again takes as long."""


def render(template: str, messages: Sequence[Mapping[str, Any]], opened: bool, tokens: Mapping[str, str]) -> str:
    """What ``template`` writes for a chat, with the assistant's turn ``opened`` behind it.

    ``tokens`` are the tokenizer's special tokens by name.

    Raises:
        TemplateError: it does not take such a chat, or is no template.
        TemplateFailedError: it fails.
        TemplateBoundError: it takes more time, memory or characters than it may.
    """
    longest = TEMPLATE_CHARACTERS.most
    if len(template) > longest:
        raise TemplateBoundError(f"it has {len(template):,} characters; {TEMPLATE_CHARACTERS.said()}")
    asked = {"conversations": [list(messages)], "chat_template": template, "add_generation_prompt": opened, **tokens}
    answer = _answer(asked | {"longest": longest, "seconds": TEMPLATE_SECONDS.most})
    if ANSWER_REFUSED in answer:
        raise TemplateError(answer[ANSWER_REFUSED])
    if ANSWER_FAILED in answer:
        raise TemplateFailedError(answer[ANSWER_FAILED])
    return answer[ANSWER_TEXT]


@dataclass
class _Renderer:
    process: "subprocess.Popen[str]"
    owner: int
    """The process that started it; one that was forked from it needs another."""

    @classmethod
    def start(cls) -> "_Renderer":
        most = TEMPLATE_MIB.most * MEBIBYTE
        command = python_command("-m", "rlhf_dagster.training.texts.chats.renderer", str(most))
        environment = plain_environment() | {"HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
        )
        return cls(process, os.getpid())

    def ask(self, line: str) -> str:
        """Its answer; empty where it has ended."""
        requests, answers = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        try:
            requests.write(line)
            requests.flush()
        except BrokenPipeError:
            return ""
        return answers.readline()

    def lives(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None


_renderer: _Renderer | None = None
_lock = Lock()


def _answer(asked: Mapping[str, Any]) -> dict[str, str]:
    global _renderer  # noqa: PLW0603  # one for all tokenizers of this process
    with _lock:
        if _renderer is None or not _renderer.lives():
            _renderer = _Renderer.start()
        answer = _renderer.ask(json.dumps(asked) + "\n")
        if answer:
            return dict(json.loads(answer))
        _renderer.process.wait()
        _renderer = None
    raise TemplateBoundError(
        f"it takes more than {TEMPLATE_SECONDS.most} s of computing or {TEMPLATE_MIB.most} MiB; where that is meant, "
        f"set {TEMPLATE_SECONDS.variable} or {TEMPLATE_MIB.variable} higher"
    )
