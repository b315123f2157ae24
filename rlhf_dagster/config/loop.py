"""The one typed config of a loop: what it learns, from whom, with which settings. Importing this imports no torch."""

import re
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from rlhf_dagster.config.arm_settings.best_of_n_sft import BestOfNSftSettings
from rlhf_dagster.config.arm_settings.group_advantages import GrpoSettings, RlooSettings
from rlhf_dagster.config.arm_settings.inheritance import with_inherited
from rlhf_dagster.config.arm_settings.release import BEST, ReleaseSettings
from rlhf_dagster.config.arms import BEST_OF_N, BEST_OF_N_SFT, DPO, PPO, TRAINED, Arm
from rlhf_dagster.config.automation import AutomationSettings, TagSettings
from rlhf_dagster.config.base import LATER, Settings, overlaid, read_yaml
from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.config.evaluation import CheckSettings, EvaluationSettings, GateSettings
from rlhf_dagster.config.judging.reward import ModelReward, RewardSettings, uses_reward_model
from rlhf_dagster.config.labeling import LabelingSettings, LabelStoreSettings
from rlhf_dagster.config.model_sizes import left_to_the_toy
from rlhf_dagster.config.models import ModelsSettings
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.config.training import (
    BaseModelSettings,
    ComputeSettings,
    DpoSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
)
from rlhf_dagster.records.ids import content_hash

CONFIG_FILE = "loop.yaml"
OWNER = re.compile(r"team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
"""What Dagster accepts as an owner."""
STORE_ADDRESS = re.compile(r"(s3|gs|az|memory)://[^\s/@?#]+(/[^\s@?#]+)?")
"""Addresses of object stores; a user or a password in one is refused."""
LEDGER = re.compile(r"(postgres(ql)?(\+psycopg)?|sqlite)://.+|\$\{[A-Za-z_][A-Za-z0-9_]*\}$")


class LoopConfig(Settings):
    """A whole loop. Every field has a default; the defaults are the embedded demo."""

    name: str = Field("sentiment", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the loop, shown in the UI."""
    root: str | None = None
    """Where the loop keeps what it makes: `s3://bucket/loop`, or the same with `gs://` or `az://` (the extra `objects`;
    keys and endpoints come from the environment). By default in the folder of this file, where unfinished trainings and
    Dagster's own files stay in any case."""
    readable_by: Literal["owner", "group", "all"] = Field("owner", json_schema_extra=LATER)
    """Which users of the machine can read what the loop writes from then on: the one who runs it, those of its group,
    or all. Services and trainings that it starts follow it, and no right is given that the umask takes. Tokens, keys
    and the list of people are for the owner in any case."""
    owner: str = "team:rlhf"
    """Owner shown on every asset: an e-mail address or `team:NAME`."""
    seed: int = Field(0, ge=0)
    """Everything random in the loop derives from it, except the base model, which has a seed of its own."""
    preset: Literal["tiny", "small", "lora", "qlora", "ziegler2019", "instructgpt"] = "tiny"
    """Defaults of `sampling`, `sft`, `reward_model`, `ppo` and `dpo`, and of `compute` in `small` (all weights of up to
    a billion parameters), `lora` (adapters, 1 to 14 billion) and `qlora` (adapters on a base of 4 bits); settings given
    here win over the preset."""
    data: DataSettings = DataSettings()
    base_model: BaseModelSettings = BaseModelSettings()
    sampling: SamplingSettings = SamplingSettings()
    sft: SftSettings = SftSettings()
    labeling: LabelingSettings = LabelingSettings()
    label_store: LabelStoreSettings = LabelStoreSettings()
    ledger: str = ""
    """Where comparisons and annotations are kept. Empty: an SQLite file in the loop's folder. Else an address such as
    `postgresql://user@host/database` or `sqlite:///file`, or `${VARIABLE}`: the address is in that environment
    variable. A password stands in the variable or in `PGPASSWORD`, never here."""
    reward_model: RewardModelSettings = RewardModelSettings()
    reward: RewardSettings = Field(ModelReward(), json_schema_extra=LATER)
    """What PPO is rewarded for; `kind` says which."""
    ppo: PpoSettings = PpoSettings()
    dpo: DpoSettings = DpoSettings()
    rloo: RlooSettings = Field(RlooSettings(), json_schema_extra=LATER)
    grpo: GrpoSettings = Field(GrpoSettings(), json_schema_extra=LATER)
    best_of_n_sft: BestOfNSftSettings = Field(BestOfNSftSettings(), json_schema_extra=LATER)
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    checks: CheckSettings = Field(CheckSettings(), json_schema_extra=LATER)
    models: ModelsSettings = ModelsSettings()
    compute: ComputeSettings = ComputeSettings()
    automation: AutomationSettings = AutomationSettings()
    tags: TagSettings = Field(TagSettings(), json_schema_extra=LATER)
    arms: list[str] = Field(
        [],
        description="Policies that each round trains beside that of `release.arm`, on the same labels, and reports "
        f"with it. Possible: {', '.join(f'`{name}`' for name in TRAINED)}.",
    )
    release: ReleaseSettings = Field(ReleaseSettings(), json_schema_extra=LATER)

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: list[str]) -> list[str]:
        for name in arms:
            if name not in TRAINED:
                raise ValueError(f"there is no arm `{name}`; choose from: {', '.join(TRAINED)}")
            if arms.count(name) > 1:
                raise ValueError(f"`{name}` is named twice")
        return arms

    @field_validator("root")
    @classmethod
    def _is_an_address(cls, root: str | None) -> str | None:
        if root is not None and not STORE_ADDRESS.fullmatch(root):
            raise ValueError("must be an address such as `s3://bucket/loop`, or be left out")
        return root

    @field_validator("owner")
    @classmethod
    def _known_to_dagster(cls, owner: str) -> str:
        if not OWNER.fullmatch(owner):
            raise ValueError("must be an e-mail address or `team:NAME`")
        return owner

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """What a preset sets, and what arms take over from the trainings that they are variants of."""
        preset = values.get("preset", "tiny") if isinstance(values, dict) else None
        if not isinstance(preset, str) or preset not in PRESETS:
            return values
        # Those of `tiny` are the defaults anyway, and what nobody has set stays unset.
        toy = preset == "tiny"
        defaults = {stage: settings.model_dump(exclude_unset=toy) for stage, settings in PRESETS[preset].items()}
        return with_inherited(
            values | {stage: _overlay(stage_defaults, values.get(stage)) for stage, stage_defaults in defaults.items()}
        )

    # Of the whole, since an error of one setting shows its value, and this may be a password.
    @model_validator(mode="after")
    def _ledger_is_an_address(self) -> Self:
        if self.ledger and not LEDGER.match(self.ledger):
            raise ValueError(
                "ledger must be an address such as postgresql://user@host/database or sqlite:///file, or ${VARIABLE}"
            )
        if holds_password(self.ledger):
            raise ValueError(
                "ledger holds a password; set it in PGPASSWORD, or put the address into an environment variable and "
                "write ${VARIABLE} here"
            )
        return self

    @model_validator(mode="after")
    def _somebody_labels(self) -> Self:
        if self.label_store.simulated_annotators and self.data.source != "task":
            raise ValueError("label_store.simulated_annotators needs `data.source: task`; set it to false for people")
        return self

    @model_validator(mode="after")
    def _heads_can_disagree(self) -> Self:
        if self.labeling.selection == "disagreement" and self.reward_model.heads < 2:
            raise ValueError(
                "labeling.selection is disagreement, and a reward model with one head agrees with itself; set "
                "reward_model.heads to 2 or more, such as 5"
            )
        return self

    @model_validator(mode="after")
    def _judge_has_its_own(self) -> Self:
        judge = self.labeling.judge
        if judge is not None and judge.instead_of_people and self.label_store.kind == "label_studio":
            raise ValueError(
                "labeling.judge.instead_of_people needs `label_store.kind: embedded`, since a task in Label Studio is "
                "there for people; set it to false, and lower labeling.judge.share where people shall judge more"
            )
        return self

    @model_validator(mode="after")
    def _people_write(self) -> Self:
        if self.data.demonstrations_to_write and self.label_store.simulated_annotators:
            raise ValueError(
                "data.demonstrations_to_write asks people; set label_store.simulated_annotators to false, or ask for 0"
            )
        return self

    @model_validator(mode="after")
    def _codes_stay_whole(self) -> Self:
        coded = {name: getattr(self, name).lora for name in ("sft", "reward_model", *self._named_arms())}
        for name, lora in coded.items():
            if self.compute.sharding == "full" and lora is not None and lora.base_bits is not None:
                raise ValueError(
                    f"{name}.lora.base_bits and `compute.sharding: full` exclude each other, as codes cannot be held "
                    "in parts; leave out one of the two"
                )
        return self

    @model_validator(mode="after")
    def _gate_can_pass(self) -> Self:
        evaluation, least = self.evaluation, self.gate.min_judgments
        prompts, given = evaluation.prompts, evaluation.human_judgments
        if prompts < least:
            raise ValueError(f"evaluation.prompts is {prompts}; gate.min_judgments asks for {least}")
        if given and given < 2 * least:
            raise ValueError(
                f"evaluation.human_judgments is {given}; half of them are against the champion, and "
                f"gate.min_judgments asks for {least}: ask for {2 * least} or more, or for 0"
            )
        wanted = evaluation.judgments(opponents=1)
        if given is None and prompts < wanted:
            raise ValueError(
                f"evaluation.precision {evaluation.precision:g} takes {wanted} judgments of an opponent, one for each "
                f"prompt, and evaluation.prompts is {prompts}: raise one of the two, or set evaluation.human_judgments"
            )
        if given is None and wanted < least:
            raise ValueError(
                f"evaluation.precision {evaluation.precision:g} takes {wanted} judgments of an opponent; "
                f"gate.min_judgments asks for {least}: lower one of the two"
            )
        return self

    @model_validator(mode="after")
    def _something_chooses_the_best(self) -> Self:
        if BEST_OF_N_SFT in self.trained_arms() and not uses_reward_model(self.reward):
            raise ValueError(
                "the arm `best_of_n_sft` chooses by the reward model, which `reward` leaves out; leave out the arm, or "
                "add the reward model to `reward`"
            )
        return self

    @model_validator(mode="after")
    def _there_is_a_choice(self) -> Self:
        if self.release.arm == BEST and len(self.trained_arms()) == 1:
            raise ValueError("`release.arm: best` chooses among the policies of several arms; name others in `arms`")
        return self

    def left_to_the_toy(self) -> list[str]:
        """The settings, as `section.name`, that are for the embedded task's model, and that nobody has set."""
        if self.preset != "tiny":
            return []
        trained = ("sampling", "sft", "reward_model", *self._named_arms())
        return left_to_the_toy({name: getattr(self, name) for name in trained})

    def trained_arms(self) -> list[Arm]:
        """The arms whose policies each round trains, in the order of all arms."""
        released = PPO.name if self.release.arm == BEST else self.release.arm
        return [arm for name, arm in TRAINED.items() if name in (released, *self.arms)]

    def _named_arms(self) -> list[str]:
        return [arm.name for arm in self.trained_arms()]

    @property
    def learns_from_feedback(self) -> bool:
        """Whether a policy of each round learns from what people thought of single responses."""
        return DPO in self.trained_arms() and self.dpo.loss == "kto"

    def promotable_arms(self) -> list[Arm]:
        """The arms of which one has the policy that may become the champion."""
        return self.trained_arms() if self.release.arm == BEST else [TRAINED[self.release.arm]]

    def arms_beside(self, candidate: Arm) -> list[Arm]:
        """The arms that a round has beside the one whose policy the gate judges: trained ones, and best-of-n."""
        sampled = [BEST_OF_N] if self.evaluation.best_of_n else []
        return [arm for arm in self.trained_arms() if arm is not candidate] + sampled

    @property
    def has_task(self) -> bool:
        return self.data.source == "task"

    def stage_seed(self, stage: str, round_key: str = "") -> int:
        """A 31-bit seed for one stage of one round."""
        return int(content_hash("seed", self.seed, stage, round_key)[:8], 16) & 0x7FFFFFFF


def holds_password(address: str) -> bool:
    """Whether an address of a database holds a password."""
    try:
        parts = urlsplit(address)
        return parts.password is not None or any("password" in name.lower() for name, _ in parse_qsl(parts.query))
    except ValueError:
        return "@" in address


def load_config(folder: Path) -> LoopConfig:
    """The config in ``folder/loop.yaml``; raises UserError with the file, the setting and what is wrong."""
    path = folder / CONFIG_FILE
    return LoopConfig.parse(read_yaml(path), str(path))


def _overlay(defaults: dict[str, Any], given: Any) -> Any:
    if given is None:
        return defaults
    if isinstance(given, Settings):
        given = given.model_dump(exclude_unset=True)
    return overlaid(defaults, given) if isinstance(given, dict) else given
