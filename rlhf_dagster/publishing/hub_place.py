"""Publications in a repository of the Hugging Face Hub: a tag for each, and `main`, the newest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.publishing.card import POLICY_CARD, withdrawn_card

WITHDRAWN_TAG = "-withdrawn"


@dataclass(frozen=True)
class HubPlace:
    """The server and the token are those of huggingface_hub (`HF_ENDPOINT`, `HF_TOKEN` or `hf auth login`)."""

    repository: str
    public: bool = False
    """Whether everybody may see the repository; one that is there must be so already."""

    @property
    def name(self) -> str:
        return self.repository

    @property
    def opened_as(self) -> str:
        return self.repository

    def revision(self, tag: str) -> str:
        return tag

    def tags(self) -> set[str]:
        """Making the repository where there is none, so that a wrong token is noticed before anything is prepared."""
        with _foreign_errors(self.repository):
            self._hub.create_repo(self.repository, private=not self.public, exist_ok=True)
            self._require_visibility(bool(self._hub.model_info(self.repository).private))
            return {tag.name.removesuffix(WITHDRAWN_TAG) for tag in self._hub.list_repo_refs(self.repository).tags}

    def put(self, files: Path, tag: str) -> str:
        with _foreign_errors(self.repository):
            done = self._hub.upload_folder(
                repo_id=self.repository, folder_path=files, commit_message=f"Publish {tag}", delete_patterns="*"
            )
            self._hub.create_tag(self.repository, tag=tag, revision=done.oid)
        return str(done.oid)

    def withdraw(self, tag: str, revision: str, reason: str, instead: str | None) -> None:
        """Also where `main` has another publication by now: then the tag alone gets another name."""
        with _foreign_errors(self.repository):
            head = self._hub.model_info(self.repository).sha
            marked = self._mark(tag, reason) if head == revision else revision
            self._hub.create_tag(self.repository, tag=f"{tag}{WITHDRAWN_TAG}", revision=marked, exist_ok=True)
            self._hub.delete_tag(self.repository, tag=tag)

    def _require_visibility(self, private: bool) -> None:
        if self.public and private:
            raise UserError(f"{self.repository} is private; change that on the Hub, or leave --public out.")
        if not (self.public or private):
            raise UserError(f"Everybody can see {self.repository}; --public says that this is meant.")

    def _mark(self, tag: str, reason: str) -> str:
        """Commit a card that begins with the withdrawal; returns the commit."""
        with TemporaryDirectory() as folder:
            path = self._hub.hf_hub_download(self.repository, POLICY_CARD, local_dir=folder)
            text = Path(path).read_text(encoding="utf-8")
        card = withdrawn_card(text, f"{datetime.now(UTC):%Y-%m-%d}", reason)
        done = self._hub.upload_file(
            path_or_fileobj=card.encode(),
            path_in_repo=POLICY_CARD,
            repo_id=self.repository,
            commit_message=f"Withdraw {tag}",
        )
        return str(done.oid)

    @property
    def _hub(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi()


@contextmanager
def _foreign_errors(repository: str) -> Iterator[None]:
    """Turn whatever huggingface_hub raises into a UserError: it has no common class. Only its calls belong inside."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{repository} on the Hub: {first_line(error)}; look whether the name is right, whether you may write "
            "there (HF_TOKEN, or `hf auth login`), and whether the Hub can be reached."
        ) from None
