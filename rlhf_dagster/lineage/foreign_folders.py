"""A model folder of somebody else before anything in it is read: its files are files, and its texts have a size."""

from collections.abc import Iterator
from pathlib import Path

from rlhf_dagster.common.bounds.limits import MEBIBYTE, MODEL_TEXT_MIB
from rlhf_dagster.common.bounds.odd_files import require_no_odd_file
from rlhf_dagster.errors import UserError

_TEXTS = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.json", "base.json"),
)
_SUFFIXES = (".jinja", ".model", ".tiktoken", ".spm", ".bpe")
_INDEX = ".index.json"


def require_files(folder: Path) -> None:
    """Raise UserError where something in a model folder would be read for ever, or into all memory."""
    for path in _entries(folder):
        require_no_odd_file(path)
        if not _is_read(path):
            continue
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a file; fetch the model again.")
        if path.is_file() and path.stat().st_size > MODEL_TEXT_MIB.most * MEBIBYTE:
            raise beyond_a_model(path)


def beyond_a_model(path: Path, what: str = "it") -> UserError:
    return UserError(
        f"{path}: {what} has more than {MODEL_TEXT_MIB.most:,} MiB, which no model's has; fetch it again, or "
        f"{MODEL_TEXT_MIB.said()}."
    )


def _entries(folder: Path) -> Iterator[Path]:
    """Transformers reads those of the folder itself, and chat templates in folders of its own."""
    yield from folder.iterdir()
    yield from folder.glob("*/*.jinja")


def _is_read(path: Path) -> bool:
    return path.name in _TEXTS or path.suffix in _SUFFIXES or path.name.endswith(_INDEX)
