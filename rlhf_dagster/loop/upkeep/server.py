"""Whether the label server and the ledger say the same."""

from collections.abc import Iterator

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.findings import Finding


def check_server(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about rounds on the label server: what is missing there, what cannot be read, what we do not know of."""
    store = loop.label_store
    if isinstance(store, EmbeddedLabelStore):
        return
    for sentence in store.unknown_projects():
        yield Finding(sentence, "one of the two")
    for round_key in loop.rounds_with("preference_batch"):
        for purpose in ("train", "evaluation"):
            for notice in store.count(round_key, purpose).notices:
                yield Finding(notice, "see docs/label_studio.md")
