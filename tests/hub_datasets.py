"""A stand-in for the Hugging Face Hub with data sets: what `datasets.load_dataset` asks of it, and what goes wrong."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from fake_server import Answer, Asked, serving

FIRST, SECOND = "1" * 40, "2" * 40
"""The commits that every data set has; the second is that of `main`."""
TOKEN = "hf_of_one_person"
FILE = "data/train.jsonl"


def judgments(commit: str) -> str:
    """The file of a commit: three judgments, whose prompts name the commit."""
    texts = {"response_a": "yes", "response_b": "no", "winner": "a", "annotator": "ada"}
    return "".join(json.dumps({"prompt": f"{commit[0]}: question {n}?", **texts}) + "\n" for n in range(3))


@dataclass
class HubOfDatasets:
    """Data sets ``org/NAME``; what each name does is in :meth:`answer`."""

    url: str = ""
    elsewhere: str = ""
    """The address of another server, where files of ``org/moved`` are, as the Hub has large ones."""
    asked: list[Asked] = field(default_factory=list)
    asked_elsewhere: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        path = unquote(urlsplit(asked.path).path)
        found = re.match(r"/(?:api/)?datasets/org/([a-z]+)(/.*)?$", path)
        if not found:
            return _no("EntryNotFound", f"no {path} here")
        name, rest = found[1], found[2] or ""
        if name == "missing":
            return _no("RepoNotFound", "Repository not found", 401)  # the Hub says so of private and missing ones alike
        if name in ("private", "moved") and asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return _no("RepoNotFound", "Invalid username or password.", 401)
        if name == "busy":
            return 429, {"error": "We had to rate limit you"}, {"Retry-After": "0"}
        return self._api(asked, name, rest) if path.startswith("/api/") else self._file(name, rest)

    def _api(self, asked: Asked, name: str, rest: str) -> Answer:
        what, _, more = rest.strip("/").partition("/")
        revision, _, folder = more.partition("/")
        if revision not in ("", "main", FIRST, SECOND):
            return _no("RevisionNotFound", f"Invalid rev id: {revision}")
        commit = FIRST if revision == FIRST else SECOND
        size, blob = len(judgments(commit)), hashlib.sha1(judgments(commit).encode()).hexdigest()
        file = {"type": "file", "path": FILE, "size": size, "oid": blob}
        if what in ("", "revision"):
            about = {"id": f"org/{name}", "sha": commit, "private": name == "private", "tags": [], "downloads": 0}
            return 200, about | {"siblings": [{"rfilename": FILE}], "likes": 0, "gated": False, "disabled": False}
        if what == "tree":
            inside = [file] if folder == "data" or "recursive=true" in asked.path.lower() else []
            return 200, inside or [{"type": "directory", "path": "data", "size": 0, "oid": "0"}]
        if what == "paths-info":
            return 200, [file] if FILE in asked.body.decode() or "data" in asked.body.decode() else []
        return _no("EntryNotFound", f"no {what} here")

    def _file(self, name: str, rest: str) -> Answer:
        found = re.match(rf"/resolve/([^/]+)/{FILE}$", rest)
        if not found:
            return _no("EntryNotFound", "Entry not found")
        commit = FIRST if found[1] == FIRST else SECOND
        text = judgments(commit)
        about = {"ETag": f'"{hashlib.sha1(text.encode()).hexdigest()}"', "X-Repo-Commit": commit}
        if name == "moved":
            linked = {"X-Linked-ETag": about["ETag"], "X-Linked-Size": str(len(text))}
            return 302, "", about | linked | {"Location": f"{self.elsewhere}/{commit}"}
        if name == "cut":
            return 200, text[:40], about | {"Content-Length": str(len(text))}
        return 200, text, about

    def answer_elsewhere(self, asked: Asked) -> Answer:
        self.asked_elsewhere.append(asked)
        return 200, judgments(asked.path.strip("/"))


def _no(code: str, message: str, status: int = 404) -> Answer:
    return status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message}


@contextmanager
def hub_of_datasets() -> Iterator[HubOfDatasets]:
    hub = HubOfDatasets()
    with ExitStack() as stack:
        hub.elsewhere = stack.enter_context(serving(hub.answer_elsewhere)).url
        hub.url = stack.enter_context(serving(hub.answer)).url
        yield hub
