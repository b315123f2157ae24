"""Renders chat templates in a process of its own, within bounds of time and memory.

A chat template is a program of whoever made the checkpoint. The sandbox in which transformers runs it keeps it from
files and from Python, and not from computing for ever or taking all memory.

``python -m rlhf_dagster.training.texts.chats.renderer BYTES`` reads a line of JSON for each chat, and writes a line
with what the template makes of it. The system ends the process where a chat takes more ``seconds`` of computing.
"""

import json
import resource
import signal
import sys
from typing import Any

from jinja2 import TemplateError

ANSWER_TEXT, ANSWER_REFUSED, ANSWER_FAILED = "text", "refused", "failed"
"""Keys of an answer: what the template writes, why it takes no such chat, or the error with which it fails."""


def main() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    _bound_memory(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
    for line in sys.stdin:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, asked.pop("seconds"))  # whose signal ends us
        answer = _answer(render_jinja_template, asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(render: Any, asked: dict[str, Any]) -> dict[str, str]:
    """What ``render`` makes of the arguments in ``asked``; ``longest`` is the most characters that it may write."""
    longest = asked.pop("longest")
    try:
        (text,), _ = render(**asked)
    except TemplateError as error:
        return {ANSWER_REFUSED: _short(error)}
    except MemoryError:
        return {ANSWER_FAILED: "MemoryError: it takes more memory than it may"}
    except Exception as error:  # a template is somebody else's code
        return {ANSWER_FAILED: f"{type(error).__name__}: {_short(error)}"}
    return {ANSWER_TEXT: text} if len(text) <= longest else {ANSWER_FAILED: f"it writes {len(text):,} characters"}


def _short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:500]


def _bound_memory(most: int) -> None:
    """Leave ``most`` bytes of memory, besides what the process has now, where the system can bound it."""
    if sys.platform != "linux":
        return
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # sizes of ours
        pages = int(file.read().split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + most, now + most))


if __name__ == "__main__":
    main()
