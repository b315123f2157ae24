"""An exported folder to the Hugging Face Hub, or to a folder that stands for it."""

import shutil
from pathlib import Path

from rlhf_dagster.errors import UserError, first_line


def push_folder(folder: Path, to: str) -> str:
    """Copy ``folder`` to the data set ``ORG/NAME`` on the Hub, or to a folder given as a path; returns where it is.

    A path begins with ``.``, ``/`` or ``~``. A data set that is new on the Hub is private: it holds what people judged.
    Raises UserError where it cannot be written.
    """
    require_target(to)
    return _copied(folder, Path(to).expanduser()) if _is_path(to) else _uploaded(folder, to)


def require_target(to: str) -> None:
    """Raise UserError for what is neither a data set's name nor a folder that is empty or not there."""
    target = Path(to).expanduser()
    if not _is_path(to) and (to.count("/") != 1 or not all(to.split("/"))):
        raise UserError(f"--push-to {to}: give ORG/NAME of a data set on the Hub, or a folder such as ./NAME.")
    if _is_path(to) and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} holds something already; choose an empty folder, or a new one.")


def _is_path(to: str) -> bool:
    return to.startswith((".", "/", "~"))


def _copied(folder: Path, target: Path) -> str:
    try:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot write here ({error.strerror or first_line(error)}).") from None
    return str(target)


def _uploaded(folder: Path, name: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=True, exist_ok=True)
        done = api.upload_folder(repo_id=name, repo_type="dataset", folder_path=folder, commit_message="Exported")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"{name} cannot be written on the Hub ({first_line(error)}); log in with `hf auth login`, or push to a "
            "folder."
        ) from None
    return str(done.commit_url)
