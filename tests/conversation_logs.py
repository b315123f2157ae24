"""Logs of conversations for tests: lines as `rlhf serve --log` writes them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def chat_line(
    *turns: str, answer: str = "Yes.", user: str = "", system: str = "", consent: Any = True, **values: Any
) -> dict[str, Any]:
    """A line whose ``turns`` are by user and assistant in turn, the last one by the user."""
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": roles[index % 2], "content": turn} for index, turn in enumerate(turns)]
    choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
    line = {"policy": "ppo-1", "consent": consent, "request": {"messages": messages}, "response": {"choices": [choice]}}
    return line | {"user": user} | values


def thumbs_line(response_id: str, thumbs: str = "up", choice: int = 0, user: str = "") -> dict[str, Any]:
    return {"feedback": {"id": response_id, "choice": choice, "thumbs": thumbs}, "user": user}


def write_log(path: Path, lines: Iterable[Any]) -> Path:
    """A file of JSON lines; texts are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
    return path
