"""`rlhf init --model`: the settings of a loop that fit a model and this machine, each with its reason."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.cli.start.new_loop import require_name
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.model_sizes import in_millions, preset_for
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.errors import UserError

if TYPE_CHECKING:
    from rlhf_dagster.training.probe.model_facts import ModelFacts

BYTES = {"small": 40, "lora": 6}
"""Bytes of memory for each parameter of a model, above which a preset does not fit. `small`: PPO trains a policy and a
value model (16 bytes each) and reads two more. `lora`: one base in bfloat16, its adapters and what a pass keeps."""
ON_A_CPU = "`bf16` would halve the memory of weights that are only read."
SMALLER = {"small": "lora", "lora": "qlora"}
Chosen = dict[str, Any]
"""Settings by section and name; reasons have the same form."""


@dataclass(frozen=True)
class Machine:
    """What a loop is to train on."""

    name: str
    gpu: bool
    bf16: bool
    """Whether it multiplies in bfloat16 at its full rate."""
    free: int | None
    """Bytes of memory; None where nobody says."""
    threads: int


def look_around() -> Machine:
    """This machine: its GPU, or where there is none its processors."""
    import torch

    from rlhf_dagster.compute.free_memory import free_on_machine

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        return Machine(f"{threads} CPU threads", False, False, free_on_machine(), threads)
    free, _ = torch.cuda.mem_get_info()
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Machine(torch.cuda.get_device_name(), True, bf16, free, threads)


def model_starter(name: str, chat: bool) -> tuple[Chosen, Chosen, list[str]]:
    """Settings for the model of this name, a Hub id or a folder; their reasons; and what else is to be known of it.

    Raises UserError where the model cannot be looked at, or cannot chat though it is to.
    """
    from rlhf_dagster.config.training import BaseModelSettings
    from rlhf_dagster.training.pretraining.base_model import base_model_source
    from rlhf_dagster.training.probe.model_facts import look_at

    folder = Path(name).expanduser()
    is_folder = folder.is_dir()
    require_name(name)
    place = BaseModelSettings(source="folder", name=str(folder.resolve())) if is_folder else _on_the_hub(name)
    facts, machine = look_at(base_model_source(place)), look_around()
    chosen, reasons = settings_for(facts, machine, is_folder, chat)
    return chosen, reasons, [*_about_chats(facts, chat), *_about_time(machine, chosen)]


def _on_the_hub(name: str) -> Any:
    from rlhf_dagster.config.training import BaseModelSettings

    return BaseModelSettings(source="hub", name=name)


def settings_for(facts: "ModelFacts", machine: Machine, is_folder: bool, chat: bool) -> tuple[Chosen, Chosen]:
    """The settings that differ from their preset's, and why."""
    preset, why = fitting_preset(facts.parameters, machine)
    chosen: Chosen = {"preset": preset, "base_model": _base_model(facts, is_folder)}
    reasons: Chosen = {"preset": f"{facts.name} ({facts.architecture}) has {in_millions(facts.parameters)} {why}"}
    if not is_folder:
        reasons["base_model"] = {"revision": "Pinned to what it is today, so that the name stays the same model."}
    for add in (_lengths(facts, preset), _chat(facts, chat), _compute(machine, preset)):
        _add(chosen, add[0])
        _add(reasons, add[1])
    return chosen, reasons


def fitting_preset(parameters: int, machine: Machine) -> tuple[str, str]:
    """The preset for a model of this size, or a smaller one that fits the machine; and why, after its size."""
    preset = by_size = preset_for(parameters)
    while machine.free is not None and preset in SMALLER and BYTES[preset] * parameters > machine.free:
        preset = SMALLER[preset]
    if preset == by_size:
        return preset, f"parameters, for which `{preset}` is made."
    return preset, (
        f"parameters; `{by_size}`, which is made for them, takes about {BYTES[by_size] * parameters / 1e9:.0f} GB in "
        f"PPO, and {machine.name} has {machine.free / 1e9:.0f} GB free."  # type: ignore[operator]
    )


def _base_model(facts: "ModelFacts", is_folder: bool) -> Chosen:
    if is_folder:
        return {"source": "folder", "name": facts.name}
    return {"source": "hub", "name": facts.name, "revision": facts.revision}


def _lengths(facts: "ModelFacts", preset: str) -> tuple[Chosen, Chosen]:
    """Lengths of a model whose context is shorter than the preset's texts: half of it for the prompt."""
    read = PRESETS[preset]["sft"].model_dump()["max_tokens"]
    if facts.context is None or facts.context >= read:
        return {}, {}
    prompt = facts.context // 2
    chosen: Chosen = {
        "sampling": {"prompt_tokens": prompt, "response_tokens": facts.context - prompt - 1},
        "sft": {"max_tokens": facts.context},
        "reward_model": {"max_tokens": facts.context},
    }
    why = (
        f"The model's context has {facts.context} tokens: half for the prompt, one for the token that ends a response."
    )
    return chosen, {"sampling": {"prompt_tokens": why}}


def _chat(facts: "ModelFacts", chat: bool) -> tuple[Chosen, Chosen]:
    if not chat:
        return {}, {}
    fatal = next((finding.sentence for finding in facts.template if finding.is_fatal), None)
    if fatal is not None:
        raise UserError(f"--chat: {facts.name} cannot chat: {fatal.rstrip('.')}; leave --chat out.")
    return {"sft": {"chat": True}}, {"sft": {"chat": "Prompts are read in the model's own chat template."}}


def _compute(machine: Machine, preset: str) -> tuple[Chosen, Chosen]:
    """Precision and processes for the machine."""
    if machine.gpu:
        chosen: Chosen = {"launch": "process"}
        reasons = {"launch": f"Nothing stays on {machine.name} between the stages."}
    else:
        chosen = {"threads": machine.threads}
        reasons = {"threads": "No GPU was found here; these are this machine's processors."}
    if not machine.bf16 and "compute" in PRESETS[preset]:
        chosen["precision"] = "fp32"
        reasons["precision"] = f"{machine.name} gains nothing by bfloat16." if machine.gpu else ON_A_CPU
    return {"compute": chosen}, {"compute": reasons}


def _add(settings: Chosen, more: Chosen) -> None:
    for section, values in more.items():
        settings[section] = {**settings.get(section, {}), **values}


def _about_chats(facts: "ModelFacts", chat: bool) -> list[str]:
    """Sentences for the console."""
    if chat:
        return [finding.sentence for finding in facts.template]
    if facts.can_chat:
        return ["It has a chat template, which is not used; `--chat` reads prompts in it."]
    return []


def _about_time(machine: Machine, chosen: Chosen) -> list[str]:
    """A warning where a preset for a GPU is to run without one."""
    if machine.gpu:
        return []
    config = LoopConfig(**chosen, label_store={"simulated_annotators": False})
    tokens = config.ppo.updates * config.ppo.batch_size * config.sampling.response_tokens
    return [
        f"No GPU was found here, and a round's PPO draws up to {tokens / 1e6:,.0f} million tokens; for a first try "
        "lower ppo.updates, ppo.batch_size and sampling.response_tokens."
    ]
