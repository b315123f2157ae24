"""How often a model finds the last word of a held-out text, as in LAMBADA (Paperno et al. 2016)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.evaluation.perplexity import LONGEST
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes.responses import made_model
from rlhf_dagster.replication.probes.scoring import last_round

_LAST_WORD = re.compile(r"\w+(?=\W*$)")


def last_words(loop: LoopFolder) -> dict[str, Any]:
    """The share of held-out documents whose last word the last round's policy finds, and SFT, as `policy` and `sft`.

    The documents are those of the alignment tax. A word is found where each of its tokens is the likeliest one.
    """
    held_out = held_out_documents(_table(loop, "pretraining_text"), _table(loop, "demonstrations"))
    if held_out.unmeasured:
        raise UserError(held_out.unmeasured)
    policy = round_candidate(loop, last_round(loop, "evaluation_completions")).policy
    models = {"policy": policy, "sft": made_model(loop, "sft_checkpoint")}
    compute = loop.config.compute
    return {name: _share(find_last_words(one.folder, held_out.documents, compute)) for name, one in models.items()}


def find_last_words(folder: Path, documents: Sequence[str], compute: ComputeSettings) -> list[bool]:
    """Whether the model finds the last word of each document, of those that end in a word with something before it."""
    import torch

    from rlhf_dagster.training.checkpoints.context import context_of
    from rlhf_dagster.training.models.policies import load_policy
    from rlhf_dagster.training.texts.tokens import encode_documents

    policy, found = load_policy(folder, compute), []
    context = context_of(policy.model.config) or LONGEST
    with torch.no_grad():
        for before, whole in _cut(documents):
            # Without the token that ends a document.
            read, ids = (tokens[:-1] for tokens in encode_documents(policy.tokenizer, [before, whole]))
            wanted, window = ids[len(read) :], torch.tensor([ids[-context - 1 : -1]], device=policy.device)
            likeliest = policy.model(input_ids=window, use_cache=False).logits[0].argmax(dim=-1).tolist()
            found.append(likeliest[-len(wanted) :] == wanted)
    return found


def _cut(documents: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each document up to its last word, and with it."""
    for document in documents:
        word = _LAST_WORD.search(document)
        if word and document[: word.start()].strip():
            yield document[: word.start()].rstrip(), document[: word.end()]


def _share(found: Sequence[bool]) -> dict[str, Any]:
    if not found:
        raise UserError("No text held out ends in a word that others precede.")
    return wilson(sum(found), len(found)).as_dict()


def _table(loop: LoopFolder, asset: str) -> pd.DataFrame:
    found = loop.table(asset)
    if found is None:
        raise UserError(f"{loop.root}: {asset} is not made; let the variant end later.")
    return found
