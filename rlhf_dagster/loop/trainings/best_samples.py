"""The best of a policy's samples by a reward model, as demonstrations to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from rlhf_dagster.common.files import make_folder, write_atomically
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.config.arm_settings.best_of_n_sft import OF_SAMPLING, BestOfNSftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import best_responses, draw_prompts
from rlhf_dagster.records.chats import messages_of, prompts_of
from rlhf_dagster.records.ids import content_hash, demonstration_id
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import DEMONSTRATIONS, table

if TYPE_CHECKING:
    from rlhf_dagster.training.sampling.best_of_n import Best

BEST_ROWS, BEST_FACTS = "best.parquet", "best.json"


@dataclass(frozen=True)
class Sampler:
    """What draws n samples of a policy for each prompt, and keeps the one that the reward model scores highest."""

    loop: LoopFolder
    policy: Checkpoint
    reward_model: Checkpoint
    settings: BestOfNSftSettings
    seed: int

    def draw(self, prompts: pd.DataFrame, folder: Path) -> dict[str, float]:
        """Write the best responses to prompts of the split `train` to ``BEST_ROWS`` in ``folder`` (DEMONSTRATIONS).

        What an interrupted call has drawn is not drawn again. Responses that do not end within
        `sampling.response_tokens` are left out: trained on, where they were cut would be learned as an end.

        Returns:
            ``reward_of_best`` and ``reward_of_samples``, the mean scores of the chosen responses and of all n, and
            ``unended_responses``, how many of the chosen ones were left out.

        Raises:
            UserError: no response is left.
        """
        chosen = draw_prompts(prompts[prompts["split"] == "train"], self.settings.prompts, self.seed)
        identity = self._identity(chosen)
        if (figures := _drawn_before(folder, identity)) is not None:
            return figures
        asked = prompts_of(chosen, "text")
        best = best_responses(self.loop, self.policy, self.reward_model, asked, self.settings.n, self.seed)
        rows = self._rows(chosen, best)
        figures = {
            "reward_of_best": fmean(one.score for one in best),
            "reward_of_samples": fmean(one.mean_score for one in best),
            "unended_responses": float(len(best) - len(rows)),
        }
        make_folder(folder)
        write_atomically(folder / BEST_ROWS, to_parquet(table(rows, DEMONSTRATIONS)))
        write_atomically(folder / BEST_FACTS, seal({"identity": identity, "figures": figures}))
        return figures

    def _identity(self, chosen: pd.DataFrame) -> str:
        own = [getattr(self.settings, name) for name in OF_SAMPLING]
        models = [self.policy.digest, self.reward_model.digest]
        return content_hash(
            "best", models, own, self.loop.config.sampling.recorded(), self.seed, list(chosen["prompt_id"])
        )

    def _rows(self, chosen: pd.DataFrame, best: "Sequence[Best]") -> list[dict[str, object]]:
        ended = self._ended(best)
        if not any(ended):
            raise UserError(
                f"None of the {len(best):,} best responses ends within sampling.response_tokens, so that there is "
                "nothing to train `best_of_n_sft` on; raise it, or leave out the arm."
            )
        source = f"best of {self.settings.n} of {self.policy.model_id} by {self.reward_model.model_id}"
        asked = prompts_of(chosen, "text")
        return [
            {
                "demonstration_id": demonstration_id(prompt, one.sample.text),
                "prompt_id": prompt_id,
                "prompt": str(prompt),
                "response": one.sample.text,
                "source": source,
                "split": "train",
                "messages": messages_of(prompt),
            }
            for prompt_id, prompt, one, whole in zip(chosen["prompt_id"], asked, best, ended, strict=True)
            if whole
        ]

    def _ended(self, best: "Sequence[Best]") -> list[bool]:
        """Whether each response ends with a token that ends responses; all do whose length is fixed."""
        from rlhf_dagster.training.models.log_probs import decoding_of
        from rlhf_dagster.training.models.policies import load_tokenizer

        sampling = self.loop.config.sampling
        if sampling.fixed_length:
            return [True] * len(best)
        ends = decoding_of(load_tokenizer(self.policy.folder), sampling).end_ids
        return [one.sample.token_ids[-1] in ends for one in best]


def _drawn_before(folder: Path, identity: str) -> dict[str, float] | None:
    """The figures of the responses that are there, where they are those of ``identity``."""
    try:
        facts = unseal((folder / BEST_FACTS).read_bytes(), BEST_FACTS)
    except (FileNotFoundError, UserError):
        return None
    return dict(facts["figures"]) if facts.get("identity") == identity else None
