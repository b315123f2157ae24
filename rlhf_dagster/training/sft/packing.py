"""Several short texts in one row of a batch, each attending to itself alone: less padding, the same loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_dagster.training.models.windows import IGNORED
from rlhf_dagster.training.texts.tokens import TokenIds


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of texts that share a row of at most ``capacity`` tokens: longest first, each in the first row with room.

    First-fit decreasing: no more rows than 11/9 of the fewest possible, plus 2/3 (Dósa 2007). A text longer than
    ``capacity`` has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = next((row for row, left in enumerate(room) if left >= lengths[index]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(capacity)
        rows[place].append(index)
        room[place] -= lengths[index]
    return rows


def pack(texts: Sequence[TokenIds], labels: Sequence[TokenIds], capacity: int, pad_id: int) -> dict[str, Tensor]:
    """Texts in rows of at most ``capacity`` tokens, with the label of each token, -100 at padding.

    Returns: `input_ids`, `labels` and `position_ids` [R, L], where each text begins at position 0, and
    `attention_mask` [R, 1, L, L], true where a token may look: at itself and what is before it in its own text. Padding
    looks at itself, or attention would divide by 0.
    """
    rows = bins([len(text) for text in texts], capacity)
    width = max(sum(len(texts[index]) for index in row) for row in rows)
    shape = (len(rows), width)
    ids, found = torch.full(shape, pad_id), torch.full(shape, IGNORED)
    positions, owner = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            place = slice(start, start := start + len(texts[index]))
            ids[number, place] = torch.tensor(texts[index])
            found[number, place] = torch.tensor(labels[index])
            found[number, place.start] = IGNORED  # Nothing of its own text comes before it.
            positions[number, place] = torch.arange(len(texts[index]))
            owner[number, place] = index
    own = owner[:, :, None] == owner[:, None, :]
    mask = own & torch.ones(width, width, dtype=torch.bool).tril()
    return {"input_ids": ids, "labels": found, "position_ids": positions, "attention_mask": mask[:, None]}
