"""Whether an architecture keeps texts that share a row apart, found by running it."""

import torch
from transformers import PreTrainedModel

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.models.reading import accepted, as_in_sampling, close, outputs_of, trial_rows
from rlhf_dagster.training.sft.packing import pack


@torch.no_grad()
def packing_refusal(model: PreTrainedModel) -> str:
    """Why `sft.packing` is wrong for ``model``, as a sentence; empty where each text is read as if it stood alone."""
    rows = trial_rows(model, (4, 3, 5))
    capacity = sum(map(len, rows))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or capacity
    packed = pack(rows, rows, min(capacity, context), rows[0][0])
    try:
        with as_in_sampling(model):
            read = {name: packed[name].to(model.device) for name in ("input_ids", "position_ids", "attention_mask")}
            together = outputs_of(model, **accepted(model, **read))
            apart = all(_same(model, packed, together, row) for row in rows)
    except Exception as error:  # whatever an architecture raises at a mask of blocks
        return _refused(model, f" ({first_line(error)})")
    return "" if apart else _refused(model, "")


def _same(model: PreTrainedModel, packed: dict[str, torch.Tensor], together: torch.Tensor, row: list[int]) -> bool:
    ids = torch.tensor([row], device=model.device)
    alone = outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    for number, whole in enumerate(packed["input_ids"].tolist()):
        places = [start for start in range(len(whole) - len(row) + 1) if whole[start : start + len(row)] == row]
        if places:
            found = together[number, places[0] : places[0] + len(row)]
            return close(found, alone)
    return False


def _refused(model: PreTrainedModel, why: str) -> str:
    return f"sft.packing: {type(model).__name__} does not keep texts of one row apart{why}; set it to false."
