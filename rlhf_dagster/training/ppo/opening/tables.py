"""The prompts and the text that PPO reads."""

import pandas as pd
from torch import Tensor

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt, prompts_of
from rlhf_dagster.records.schemas import PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import context_of
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.models.windows import text_windows
from rlhf_dagster.training.ppo.memory import LONGEST_WINDOW
from rlhf_dagster.training.runtime.device import require_a_row_for_each_rank
from rlhf_dagster.training.specs import PpoSpec


def prompts_in(spec: PpoSpec, split: str) -> pd.DataFrame:
    return rows_of_split(read_table(spec.prompts, PROMPTS), split, spec.prompts)


def held_out_prompts(spec: PpoSpec) -> list[Prompt]:
    rows, most = prompts_in(spec, "validation"), spec.settings.validation_prompts
    count = min(len(rows), most)
    require_a_row_for_each_rank(min(count, spec.settings.batch_size // 2), "Validation (ppo.validation_prompts)")
    return prompts_of(rows.sample(count, random_state=spec.seed), "text")


def pretraining_windows(spec: PpoSpec, start: Policy) -> Tensor | None:
    if spec.settings.pretraining_coef == 0:
        return None
    if spec.pretraining_text is None:
        raise UserError("ppo.pretraining_coef is above 0 but there is no pretraining text; give some or set it to 0.")
    rows = rows_of_split(read_table(spec.pretraining_text, PRETRAINING_TEXT), "train", spec.pretraining_text)
    context = min(context_of(start.model.config) or LONGEST_WINDOW, LONGEST_WINDOW)
    return text_windows(start.tokenizer, rows["text"].tolist(), context)
