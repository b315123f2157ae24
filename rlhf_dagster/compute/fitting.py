"""Settings with which a training needs less memory, each tried by computing the estimate with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rlhf_dagster.compute.memory import placed, required_bytes, why_whole
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec

SECTIONS: dict[type[Any], str] = {SftSpec: "sft", RewardModelSpec: "reward_model", PpoSpec: "ppo", DpoSpec: "dpo"}
"""What `loop.yaml` calls the settings of each training."""
RANK = 16
"""Of adapters that are proposed."""
WHOLE_ALONE = ("optimizer", "trained_weights")
"""Settings of compute whose other values models in parts do not have."""
MOST_SETTINGS = 4
"""Of one way."""
SMALL_PIECES = 64
"""MiB of logits that are proposed."""


@dataclass(frozen=True)
class Change:
    """A setting, and its cost: the larger, the more it changes what is learned or how long that takes."""

    name: str
    cost: int
    apply: Callable[[Any], Any]
    """The changed spec, or None where the setting is no change or does nothing there."""
    value: Any

    @property
    def text(self) -> str:
        shown = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.name}: {shown}"


@dataclass(frozen=True)
class Way:
    """Settings that go together, and the memory in bytes that one process then needs."""

    changes: tuple[Change, ...]
    needed: int

    @property
    def names(self) -> set[str]:
        return {change.name for change in self.changes}

    @property
    def text(self) -> str:
        return ", ".join(change.text for change in self.changes)


def ways_to_fit(spec: Spec, free: int, most: int = 3, section: str | None = None) -> list[Way]:
    """The cheapest ways to have ``spec`` need at most ``free`` bytes; none where nothing that is tried is enough.

    A way with the settings of a cheaper one, other values or more settings, is left out. ``section``
    is what the settings are called, where the spec is not that of the training they are named for.
    """
    found: list[Way] = []
    spec = placed(spec)
    for changes in sorted(
        _together(_changes(spec, section or SECTIONS.get(type(spec)))),
        key=lambda changes: sum(change.cost for change in changes),
    ):
        if any(way.names <= {change.name for change in changes} for way in found):
            continue
        changed = _changed(spec, changes)
        needed = None if changed is None else required_bytes(changed)
        if needed is not None and needed <= free:
            found.append(Way(changes, needed))
        if len(found) == most:
            break
    return found


def _together(changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
    """Up to ``MOST_SETTINGS`` changes of different settings."""
    for count in range(1, MOST_SETTINGS + 1):
        for chosen in combinations(changes, count):
            if len({change.name for change in chosen}) == count:
                yield chosen


def _changed(spec: Spec, changes: Sequence[Change]) -> Spec | None:
    """``spec`` with all ``changes``; None where one of them changes nothing beside the others."""
    changed: Spec | None = spec
    for change in changes:
        changed = None if changed is None else change.apply(changed)
    return changed


def _changes(spec: Spec, section: str | None) -> list[Change]:
    """What may be changed, in the order in which it is applied."""
    if section is None:
        return []
    # Last what the others may exclude.
    in_parts = Change("compute.sharding", 3, _in_parts, "full")
    return [*_of_compute(), *_of_section(section, spec), *_of_adapters(section), *_of_sampling(), in_parts]


def _of_compute() -> Iterator[Change]:
    yield Change("compute.logits_mib", 1, _in_small_pieces, SMALL_PIECES)
    yield Change("compute.gradient_checkpointing", 3, _compute("gradient_checkpointing", True), True)
    yield Change("compute.precision", 4, _compute("precision", "bf16"), "bf16")
    yield Change("compute.optimizer", 4, _compute("optimizer", "adamw_8bit"), "adamw_8bit")
    yield Change("compute.trained_weights", 5, _in_bf16, "bf16")


def _of_section(section: str, spec: Any) -> Iterator[Change]:
    """Parts of batches: the gradient stays that of the batch, so they cost little."""
    for power in range(1, 11):
        parts = spec.settings.accumulate * 2**power
        if parts > spec.settings.batch_size:
            return
        yield Change(f"{section}.accumulate", 2, _settings("accumulate", parts), parts)


def _of_adapters(section: str) -> Iterator[Change]:
    yield Change(f"{section}.lora", 8, _with_lora, f"{{rank: {RANK}}}")
    yield Change(f"{section}.lora.merge", 4, _lora("merge", False), False)
    yield Change(f"{section}.lora.base_bits", 6, _lora("base_bits", 8), 8)
    yield Change(f"{section}.lora.base_bits", 7, _lora("base_bits", 4), 4)


def _of_sampling() -> Iterator[Change]:
    for rows in (128, 64, 32, 16, 8):
        yield Change("sampling.batch_size", 2, _sampling("batch_size", rows), rows)


def _compute(name: str, value: Any) -> Callable[[Any], Any]:
    def apply(spec: Any) -> Any:
        if getattr(spec.compute, name) == value or (name in WHOLE_ALONE and spec.compute.sharding == "full"):
            return None
        return _replaced(spec, "compute", name, value)

    return apply


def _in_small_pieces(spec: Any) -> Any:
    return _compute("logits_mib", SMALL_PIECES)(spec) if spec.compute.logits_mib > SMALL_PIECES else None


def _in_parts(spec: Any) -> Any:
    """Only where several ranks train models that can be in parts."""
    return None if why_whole(spec) else _compute("sharding", "full")(spec)


def _in_bf16(spec: Any) -> Any:
    return _compute("trained_weights", "bf16")(spec) if spec.compute.precision == "bf16" else None


def _settings(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda spec: _replaced(spec, "settings", name, value)


def _sampling(name: str, value: int) -> Callable[[Any], Any]:
    """Responses that are drawn or read at once, in PPO and beside a training on labels."""

    def apply(spec: Any) -> Any:
        limits = isinstance(spec, RewardModelSpec | DpoSpec) or _draws_in_parts(spec)
        return _replaced(spec, "sampling", name, value) if limits and value < getattr(spec.sampling, name) else None

    return apply


def _draws_in_parts(spec: Any) -> bool:
    """Whether this package draws PPO's responses; another program is given all of them at once."""
    return isinstance(spec, PpoSpec) and spec.compute.rollout_backend == "native"


def _with_lora(spec: Any) -> Any:
    frozen = isinstance(spec, PpoSpec) and spec.settings.frozen_layers > 0
    if spec.settings.lora is not None or frozen:
        return None
    return _replaced(spec, "settings", "lora", LoraSettings(rank=RANK, alpha=2 * RANK))


def _lora(name: str, value: Any) -> Callable[[Any], Any]:
    """A change of adapters; bits are those of a base that stays as it is."""

    def apply(spec: Any) -> Any:
        lora = spec.settings.lora
        coded = name == "base_bits"
        if lora is None or getattr(lora, name) == value or (coded and lora.merge):
            return None
        if coded and spec.compute.sharding == "full":
            return None
        return _replaced(spec, "settings", "lora", lora.changed(**{name: value}))

    return apply


def _replaced(spec: Any, part: str, name: str, value: Any) -> Any:
    settings: Settings = getattr(spec, part)
    return replace(spec, **{part: settings.changed(**{name: value})})
