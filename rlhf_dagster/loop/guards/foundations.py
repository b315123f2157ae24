"""What all models of a loop stand on, and must share: one base model, and one tokenizer."""

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.model_folders import folder_digest, tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder

BEGIN_ANEW = "bring the earlier one back, or begin a new loop in another folder (rlhf init FOLDER)"


def require_one_tokenizer(*models: Checkpoint) -> None:
    """Raise UserError where two models read token ids as different words: their probabilities cannot be compared."""
    first, *others = models
    for other in others:
        if tokenizer_digest(first.folder) != tokenizer_digest(other.folder):
            raise UserError(
                f"{first.model_id} and {other.model_id} have different tokenizers, so that the same ids are other "
                f"words to each: `base_model` or `sft` was changed in mid-loop; {BEGIN_ANEW}."
            )


def require_same_base(loop: LoopFolder, base: Checkpoint) -> None:
    """Raise UserError where the champion of a round goes back to another base model than ``base``."""
    champion, first = loop.registry.champion(), base_of_first_champion(loop)
    if champion is None or not champion.round_key or first is None:
        return
    if first.digest != base.digest and not _same_files(first, base):
        raise UserError(
            f"{champion.policy_id}, the champion, was trained from {first.model_id}, and `base_model` gives "
            f"{base.model_id} now; {BEGIN_ANEW}."
        )


def require_base_of(loop: LoopFolder, sft: Checkpoint) -> None:
    """Raise UserError where ``sft`` was trained from another base model than the first champion."""
    base = base_of(loop, sft)
    if base is not None:
        require_same_base(loop, base)


def base_of_first_champion(loop: LoopFolder) -> Checkpoint | None:
    """The base model of the policy with which the loop's rounds began; None where there is none any more."""
    initial = [entry.policy_id for entry in loop.registry.history() if entry.action == "initial"]
    try:
        return base_of(loop, loop.policy(initial[-1])) if initial else None
    except UserError:  # gone or damaged, and nothing to compare with
        return None


def base_of(loop: LoopFolder, sft: Checkpoint) -> Checkpoint | None:
    """The base model that an SFT checkpoint was trained from; None where its manifest names none."""
    parent = read_manifest(sft.folder)["parents"].get("base_model")
    if not parent:
        return None
    return loop.pointed_to({**parent, "path": f"models/{parent['model_id']}"})


def _same_files(first: Checkpoint, other: Checkpoint) -> bool:
    """Whether two models have equal weights, though they may have been made under other settings."""
    try:
        return folder_digest(first.folder) == folder_digest(other.folder)
    except UserError:
        return False
