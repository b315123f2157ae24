"""Settings of where prompts, demonstrations and pretraining text come from."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_dagster.config.base import LATER, Settings


class HubDataset(Settings):
    """A data set that `datasets.load_dataset` opens: a Hub id, or a local folder of Parquet, JSON or CSV files."""

    name: str
    config: str | None = None
    revision: str | None = None
    """Pin a commit, so that the same name stays the same data."""
    split: str = "train"
    prompt: str | None = None
    """Column with the prompt."""
    response: str | None = None
    """Column with the response (demonstrations)."""
    text: str | None = None
    """Column with the text (pretraining)."""
    user: str | None = None
    """Column that says whose prompt or demonstration it is; splits keep a user together."""
    chat: str | None = Field(None, json_schema_extra=LATER)
    """Column with whole chats, in place of `prompt` and `response`: lists of messages, or texts whose turns begin with
    `Human:` and `Assistant:` (Bai et al. 2022). The assistant's last message is the response, the rest the prompt."""
    beginning: int | None = Field(None, ge=1, json_schema_extra=LATER)
    """Words (separated by white space) of the column `prompt` that are the prompt, for texts to go on with. What comes
    after them is the response where `response` names the same column; texts that have no more words are left out
    then, and empty ones always."""

    @model_validator(mode="after")
    def _one_way_to_read(self) -> Self:
        if self.chat and (self.prompt or self.response):
            raise ValueError("`chat` holds prompt and response; leave the columns `prompt` and `response` out")
        if self.beginning and not self.prompt:
            raise ValueError("`beginning` is that of the column `prompt`; name it")
        if self.prompt and self.prompt == self.response and not self.beginning:
            raise ValueError("`prompt` and `response` are the same column; say with `beginning` where it is cut")
        return self


class JudgmentsDataset(Settings):
    """A data set of judgments that `datasets.load_dataset` opens, in any form that `rlhf import judgments` takes."""

    name: str
    """A Hub id, or a folder of Parquet, JSON or CSV files beside the config."""
    config: str | None = None
    revision: str | None = None
    """Pin a commit, so that the same name stays the same data."""
    split: str = "train"
    form: str = ""
    """The form of its rows, as `--form` takes it; empty: the one that the first rows have."""
    columns: dict[str, str] = Field({})
    """Our names of columns, each with that of the data set, as `--column` takes them."""


class DataSettings(Settings):
    """Where prompts, demonstrations and pretraining text come from.

    `task` generates them; `imports` takes what `rlhf import` brought in; a `*_dataset` replaces either for its table.
    """

    source: Literal["task", "imports"] = "task"
    task: str = "sentiment"
    """The embedded task, one of an installed package, or one of your own as `file.py:NAME` (`source: task`); the path
    is relative to the config."""
    annotator_kind: str = Field("", json_schema_extra=LATER)
    """Which of the task's kinds of simulated annotators label (`source: task`), such as `heuristic` of the task
    `summaries`; empty takes the task's first."""
    prompts: int = Field(6000, ge=1)
    """Prompts to generate (`source: task`)."""
    demonstrations: int = Field(2500, ge=1)
    """Demonstrations to generate (`source: task`)."""
    demonstrations_to_write: int = Field(0, ge=0)
    """Train prompts to send to the label store, where people write the response that an ideal assistant would give.
    What they wrote joins the demonstrations that there are."""
    pretraining_texts: int = Field(12_000, ge=1)
    """Documents to generate (`source: task`)."""
    pretraining_files: list[str] = Field([])
    """Text files (a document ends at an empty line) or `.jsonl` files with a `text` key, relative to the config.
    With `source: imports` and none given, the imported demonstrations are the pretraining text."""
    prompts_dataset: HubDataset | None = None
    demonstrations_dataset: HubDataset | None = None
    pretraining_dataset: HubDataset | None = None
    judgments_dataset: JudgmentsDataset | None = Field(None, json_schema_extra=LATER)
    """Judgments that the asset `prompts` imports as `round-0000`, with their prompts; needs `source: imports`."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of prompts (by user where known) kept for decisions during development."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of prompts kept for the evaluation report alone."""

    @model_validator(mode="after")
    def _columns_named(self) -> Self:
        needs = {
            "prompts_dataset": ["prompt"],
            "demonstrations_dataset": ["prompt", "response"],
            "pretraining_dataset": ["text"],
        }
        for field, columns in needs.items():
            dataset = getattr(self, field)
            if dataset and dataset.chat and "prompt" in columns:
                continue
            missing = [column for column in columns if dataset and not getattr(dataset, column)]
            if missing:
                raise ValueError(f"{field} must name its `{missing[0]}` column")
        return self

    @model_validator(mode="after")
    def _kind_of_a_task(self) -> Self:
        if self.annotator_kind and self.source != "task":
            raise ValueError("annotator_kind is a kind of a task's annotators; it needs `source: task`")
        return self

    @model_validator(mode="after")
    def _judgments_of_imports(self) -> Self:
        if self.judgments_dataset and self.source != "imports":
            raise ValueError("judgments_dataset is imported; it needs `source: imports`")
        return self

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation ({self.validation:g}) and test ({self.test:g}) leave no prompt to train on")
        return self
