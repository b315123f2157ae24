"""Where a checkpoint is opened from, and how what transformers raises about it becomes one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils import logging as transformers_logging

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import require_checkpoint


@dataclass(frozen=True)
class Source:
    """A model folder, or a repository of the Hugging Face Hub."""

    name: str
    revision: str | None = None
    """Of a repository; None for a folder."""

    @property
    def folder(self) -> Path | None:
        return Path(self.name) if self.revision is None else None

    @property
    def place(self) -> str:
        """How sentences name it."""
        return self.name if self.revision is None else f"{self.name!r} on the Hub"

    @property
    def arguments(self) -> dict[str, Any]:
        """For any `from_pretrained`. No code from the folder or repository is run, and nobody is asked about it."""
        where = {"local_files_only": True} if self.revision is None else {"revision": self.revision}
        return {"pretrained_model_name_or_path": self.name, "trust_remote_code": False, **where}


def folder_source(folder: Path) -> Source:
    """A folder as a source; raises UserError where it holds no whole checkpoint."""
    return Source(str(require_checkpoint(folder)))


def snapshot(source: Source) -> Path:
    """The folder on this machine that holds a source's files, fetched before if it is a repository."""
    if source.folder is not None:
        return source.folder
    with foreign_errors(source.place, "the config", "check the name, the revision and the network"):
        return Path(str(cached_file(source.name, CONFIG_NAME, revision=source.revision))).parent


@contextmanager
def foreign_errors(place: str, what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a call of transformers raises into a UserError, and have it log errors alone.

    Its errors have no common class. Only calls of transformers belong inside, so that our own mistakes stay visible.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{place}: {what} cannot be opened ({_said(error)}); {remedy}.") from None
    finally:
        transformers_logging.set_verbosity(verbosity)


def _said(error: Exception) -> str:
    """The first sentence of an error; with its class where that alone says what is wrong, as for a key."""
    first, *more = [line.strip() for line in str(error).strip().splitlines()] or [""]
    # Where the first line ends with a colon, what is wrong stands in the second.
    said = f"{first} {more[0]}" if more and first.endswith(":") else first
    text = said.split(". ")[0].rstrip(".:, ")
    plain = isinstance(error, OSError | ValueError | ImportError | RuntimeError)
    return text if text and plain else f"{type(error).__name__}: {text}".rstrip(": ")
