"""A task beside the one that is learned: finding the last word of a text."""

from collections.abc import Sequence
from typing import Any

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes.models import newest


def last_words(loop: LoopFolder) -> dict[str, Any]:
    """How often the newest round's ``policy``, and ``sft``, find the last word of a held-out pretraining text.

    Of each text the model reads what stands before its last word, and each token of the word must be the likeliest
    (Paperno et al. 2016, LAMBADA).
    """
    texts, demonstrations = loop.table("pretraining_text"), loop.table("demonstrations")
    if texts is None or demonstrations is None:
        raise UserError(f"{loop.root}: there is no pretraining text yet; run `prepare` first.")
    documents = held_out_documents(texts, demonstrations).documents
    cases = [case for case in map(_before_last_word, documents) if all(case)]
    if not cases:
        raise UserError(f"{loop.root}: no pretraining text is held out, whose last word could be found.")
    policy = round_candidate(loop, loop.rounds_with("eval_report")[-1]).policy
    folders = {"policy": policy.folder, "sft": newest(loop, "sft_checkpoint").folder}
    return {name: wilson(_found(folder, cases, loop), len(cases)).as_dict() for name, folder in folders.items()}


def _before_last_word(text: str) -> tuple[str, str]:
    """What stands before the last word, and that word; both empty where there is none."""
    words = text.split()
    places = [place for place, word in enumerate(words) if any(map(str.isalnum, word))]
    return (" ".join(words[: places[-1]]), words[places[-1]]) if places and places[-1] else ("", "")


def _found(folder: Any, cases: Sequence[tuple[str, str]], loop: LoopFolder) -> int:
    import torch

    from rlhf_dagster.training.checkpoints.context import context_of
    from rlhf_dagster.training.models.policies import load_policy

    policy = load_policy(folder, loop.config.compute)
    context, found = context_of(policy.model.config) or 1024, 0
    with torch.no_grad():
        for before, word in cases:
            ids = policy.tokenizer(f"{before} {word}", add_special_tokens=False)["input_ids"][-context:]
            size = len(policy.tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
            logits = policy.model(input_ids=torch.tensor([ids], device=policy.device)).logits[0]
            found += logits[-size - 1 : -1].argmax(dim=-1).tolist() == ids[-size:]
    return found
