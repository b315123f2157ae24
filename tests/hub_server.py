"""A stand-in for the Hugging Face Hub: as much of its interface as publishing asks for."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from fake_server import Answer, Asked, serving

Files = dict[str, bytes]


@dataclass
class StandInHub:
    """One repository, and the cards of others."""

    url: str = ""
    private: bool | None = None
    """None before it is made."""
    commits: dict[str, Files] = field(default_factory=dict)
    head: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    """By ``models/NAME`` and ``datasets/NAME``."""
    refuses: bool = False

    def files(self, revision: str = "") -> Files:
        """Those of a tag, of a commit, or of `main`."""
        return self.commits[self.tags.get(revision, revision or self.head)]

    def answer(self, asked: Asked) -> Answer:
        path = unquote(urlsplit(asked.path).path)
        if self.refuses:
            return 403, {"error": "Forbidden: a token with the right to write is needed."}
        for pattern, method, handle in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and asked.method == method:
                return handle(self, asked, *found.groups())
        return 404, {"error": f"no {asked.method} {path} here"}

    def create(self, asked: Asked) -> Answer:
        if self.private is not None:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/org/name"}
        wanted = json.loads(asked.body)
        self.private = wanted.get("private", wanted.get("visibility") == "private")
        self.head, self.commits = "first", {"first": {}}
        return 200, {"url": f"{self.url}/org/name", "name": "org/name"}

    def info(self, _: Asked, kind: str, name: str) -> Answer:
        about = {"id": name, "tags": [], "downloads": 0, "likes": 0, "private": bool(self.private), "sha": self.head}
        licence = self.licences.get(f"{kind}/{name}")
        if name != "org/name" and licence is None:
            return 404, {"error": "Repository not found"}
        return 200, about | ({"cardData": {"license": licence}} if licence else {})

    def refs(self, _: Asked) -> Answer:
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in self.tags.items()]
        return 200, {"branches": [], "converts": [], "tags": tags}

    def tree(self, _: Asked) -> Answer:
        return 200, [
            {"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in self.files().items()
        ]

    def preupload(self, asked: Asked) -> Answer:
        files = json.loads(asked.body)["files"]
        return 200, {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}

    def commit(self, asked: Asked) -> Answer:
        files = dict(self.files())
        for line in asked.body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                files.pop(entry["value"]["path"])
        self.head = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[self.head] = files
        return 200, {"commitUrl": f"{self.url}/org/name/commit/{self.head}", "commitOid": self.head}

    def tag(self, asked: Asked, revision: str) -> Answer:
        name = json.loads(asked.body)["tag"]
        if name in self.tags:
            return 409, {"error": "Tag exists"}
        self.tags[name] = self.head if revision == "main" else revision
        return 200, {}

    def untag(self, _: Asked, tag: str) -> Answer:
        del self.tags[tag]
        return 200, {}

    def download(self, _: Asked, name: str) -> Answer:
        text = self.files()[name].decode()
        etag = hashlib.sha1(text.encode()).hexdigest()
        return 200, text, {"ETag": f'"{etag}"', "X-Repo-Commit": self.head, "Content-Length": str(len(text.encode()))}


_REPO = "/api/models/org/name"
_ROUTES = [
    ("/api/repos/create", "POST", StandInHub.create),
    ("/api/validate-yaml", "POST", lambda *_: (200, {"errors": [], "warnings": []})),
    (f"{_REPO}/refs", "GET", StandInHub.refs),
    (f"{_REPO}/tree/main", "GET", StandInHub.tree),
    (f"{_REPO}/preupload/main", "POST", StandInHub.preupload),
    (f"{_REPO}/commit/main", "POST", StandInHub.commit),
    (f"{_REPO}/tag/([^/]+)", "POST", StandInHub.tag),
    (f"{_REPO}/tag/([^/]+)", "DELETE", StandInHub.untag),
    ("/org/name/resolve/main/(.+)", "HEAD", StandInHub.download),
    ("/org/name/resolve/main/(.+)", "GET", StandInHub.download),
    ("/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/[^/]+)?", "GET", StandInHub.info),
]


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    hub = StandInHub()
    with serving(hub.answer) as server:
        hub.url = server.url
        yield hub
