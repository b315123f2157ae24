"""Where publications go: a folder, or a repository of the Hugging Face Hub."""

import re
from pathlib import Path
from typing import Protocol

from rlhf_dagster.errors import UserError
from rlhf_dagster.publishing.folder_place import FolderPlace
from rlhf_dagster.publishing.hub_place import HubPlace

_ON_HUB = "hub:"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class PublishingPlace(Protocol):
    """Keeps publications under tags, and offers the newest one to those who ask for none."""

    @property
    def name(self) -> str:
        """As it is on record."""

    @property
    def opened_as(self) -> str:
        """What `from_pretrained` is given."""

    def revision(self, tag: str) -> str:
        """The revision that `from_pretrained` is given beside it; empty where it takes none."""

    def tags(self) -> set[str]:
        """Those that are taken."""

    def put(self, files: Path, tag: str) -> str:
        """Publish the files in a folder as the newest; returns the revision that they have."""

    def withdraw(self, tag: str, revision: str, reason: str, instead: str | None) -> None:
        """Mark a publication, and take it from where people look first.

        ``instead`` is the tag of the newest one that stands besides it.
        """


def place_of(to: str, *, public: bool = False) -> PublishingPlace:
    """`ORG/NAME` or `hub:ORG/NAME` is a repository, anything else a folder; raises UserError where it may be both."""
    if to.startswith(_ON_HUB):
        return HubPlace(_repository(to.removeprefix(_ON_HUB)), public)
    if not _REPOSITORY.fullmatch(to):
        return _folder(to, public)
    if Path(to).parent.exists():
        raise UserError(f"--to {to} may be a folder here or a repository of the Hub: write ./{to} or hub:{to}.")
    return HubPlace(_repository(to), public)


def _folder(to: str, public: bool) -> FolderPlace:
    if public:
        raise UserError(f"--public is for a repository of the Hub, and {to} is a folder; leave it out.")
    return FolderPlace(Path(to).expanduser().absolute())


def _repository(name: str) -> str:
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"--to hub:{name}: a repository is called ORG/NAME.")
    return name
