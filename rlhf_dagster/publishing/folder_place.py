"""Publications in a folder: one folder for each tag, and `latest`, a link to the newest that stands."""

import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlhf_dagster.common.files import writing
from rlhf_dagster.lineage.model_folders import replacing
from rlhf_dagster.publishing.card import POLICY_CARD, withdrawn_card

LATEST, WITHDRAWN = "latest", "-withdrawn"


@dataclass(frozen=True)
class FolderPlace:
    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def opened_as(self) -> str:
        return "THIS_FOLDER"

    def revision(self, tag: str) -> str:
        return ""

    def tags(self) -> set[str]:
        if not self.folder.is_dir():
            return set()
        return {path.name.removesuffix(WITHDRAWN) for path in self.folder.iterdir()}

    def put(self, files: Path, tag: str) -> str:
        with replacing(self.folder / tag) as written:
            shutil.copytree(files, written, dirs_exist_ok=True)
        self._offer(tag)
        return ""

    def withdraw(self, tag: str, revision: str, reason: str, instead: str | None) -> None:
        old, new = self.folder / tag, self.folder / f"{tag}{WITHDRAWN}"
        with writing(self.folder):
            if old.is_dir():
                old.rename(new)
            if (new / POLICY_CARD).is_file():
                text = (new / POLICY_CARD).read_text(encoding="utf-8")
                (new / POLICY_CARD).write_text(
                    withdrawn_card(text, f"{datetime.now(UTC):%Y-%m-%d}", reason), encoding="utf-8"
                )
        if self._offered() == tag:
            self._offer(instead)

    def _offered(self) -> str:
        link = self.folder / LATEST
        return link.readlink().name if link.is_symlink() else ""

    def _offer(self, tag: str | None) -> None:
        """Have `latest` lead to a publication, or to none; it is never half of one."""
        link, beside = self.folder / LATEST, self.folder / f".{LATEST}.{uuid.uuid4().hex}"
        with writing(self.folder):
            if tag is None:
                link.unlink(missing_ok=True)
                return
            beside.symlink_to(tag)
            beside.replace(link)
