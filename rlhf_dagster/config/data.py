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


PersonalData = Literal[
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "CRYPTO",
    "US_SSN",
    "URL",
    "DE_TAX_ID",
    "ES_NIF",
    "FI_PERSONAL_IDENTITY_CODE",
    "IN_PAN",
    "IT_FISCAL_CODE",
    "PL_PESEL",
    "SE_PERSONNUMMER",
    "TH_TNIN",
    "UK_NHS",
    "UK_NINO",
]
"""Kinds of personal data, as Presidio calls them, that it finds by patterns and check digits, without a model."""


class FeedbackSettings(Settings):
    """Prompts from what users have said to the served champion: logs of `rlhf serve --log`, or others in OpenAI's form.

    `rlhf feedback` reads them anew, and so do the asset `prompts` and a sensor; a line that is taken out of a log takes
    its prompt with it.
    """

    logs: list[str] = Field([])
    """Files of JSON lines, or folders of them, relative to the config; needs `source: imports`."""
    consent: bool = True
    """Take only conversations whose record says that their user has agreed (`consent` of the line, or of the request's
    metadata)."""
    per_user: int | None = Field(200, ge=1)
    """Most prompts of one user, the newest ones (Ouyang et al. 2022), and most thumbs. Conversations that name no user
    count as those of one. Null: as many as there are."""
    common_prefix: int | None = Field(200, ge=1)
    """Conversations that begin with so many equal characters, without system messages, are one, and the first one stays
    (Ouyang et al. 2022). Null: only those that are equal."""
    personal_data: Literal["leave_out", "mask", "keep"] = "leave_out"
    """What becomes of a conversation in which some is found: it is left out, or has a mark such as `<EMAIL_ADDRESS>` in
    place of what was found, or stays as it is. The first two need the extra `privacy`. Names and postal addresses are
    not found, and often stand beside what is; so the default is `leave_out`."""
    personal_data_kinds: list[PersonalData] = Field(
        [
            "EMAIL_ADDRESS",
            "PHONE_NUMBER",
            "CREDIT_CARD",
            "IBAN_CODE",
            "IP_ADDRESS",
            "MAC_ADDRESS",
            "CRYPTO",
            "US_SSN",
        ],
        min_length=1,
    )
    """What is looked for, by the names of Presidio (the extra `privacy`)."""
    phone_regions: list[str] = Field(["US", "GB", "DE", "FR", "IL", "IN", "CA", "BR"], min_length=1)
    """Countries, by two letters, whose phone numbers are known without a country code. Each costs time."""
    min_new: int = Field(100, ge=1)
    """The sensor prepares the prompts anew once the logs hold so many more lines."""


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
    feedback: FeedbackSettings = Field(FeedbackSettings(), json_schema_extra=LATER)
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
    def _people_judge_what_people_ask(self) -> Self:
        if self.feedback.logs and self.source != "imports":
            raise ValueError(
                "feedback.logs hold prompts of people, which no task can judge; they need `source: imports`"
            )
        return self

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation ({self.validation:g}) and test ({self.test:g}) leave no prompt to train on")
        return self
