"""What a claim is made of: variants of a loop, probes of them, figures, and bounds that decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlhf_dagster.loop.folder import LoopFolder

Size = Literal["quick", "full"]
"""How much is spent: minutes on two CPU cores, or hours."""
PILOT_SEED = 100
"""Settings are chosen on seeds from here on; those below are reported."""
Measured = Mapping[str, Any]
"""What one seed of a claim came to: numbers, and lists and mappings of numbers, by name; JSON holds them."""


@dataclass(frozen=True)
class Probe:
    """A measurement of a finished variant that needs its models; taken once, and kept beside the loop."""

    name: str
    """That of a function in :mod:`rlhf_dagster.replication.probes`."""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A loop that an experiment runs: a task, settings that differ from the task's own, rounds, and where it ends."""

    name: str
    """Short, for progress and folders, such as ``labels-250``; what decides the loop is hashed beside it."""
    task: str
    """A name for :func:`~rlhf_dagster.tasks.known.get_task`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `loop.yaml`, by section, laid over the task's own."""
    rounds: int = 1
    until: str = "eval_report"
    """The asset of the last round after which it ends."""
    between: str = ""
    """The asset after which the rounds before the last end; empty: their promotion. A round that ends before it has a
    policy leaves the champion, from which the next one samples, as it is."""
    forks: "Variant | None" = None
    """A variant with the same beginning: its assets up to :attr:`after` are taken over instead of made again."""
    after: str = ""
    """The last asset that is taken over; of the first round, where it belongs to a round."""
    anew: Sequence[str] = ()
    """Assets of that beginning that it makes again with its own settings, for a policy of another size on the same
    labels and the same reward model: what was made from them is taken over all the same."""
    probes: Sequence[Probe] = ()


class Results(Protocol):
    """The finished variants of one claim and one seed."""

    @property
    def seed(self) -> int: ...

    def loop(self, variant: Variant) -> "LoopFolder":
        """The loop that the variant has become."""
        ...

    def probe(self, variant: Variant, name: str) -> Any:
        """What a probe of the variant measured (JSON)."""
        ...


@dataclass(frozen=True)
class Criterion:
    """One comparison that a claim stands or falls with: a value, its 95% interval, and the side it must lie on."""

    sentence: str
    """What must hold, such as `SFT and RL beats RL alone by the gold judge`; shown beside the value."""
    value: float
    low: float
    high: float
    bound: float
    side: Literal["above", "below"]
    n: int
    """How many seeds, or prompts of one seed, the interval rests on."""
    percent: bool = False
    """Whether the numbers are shares, and shown as percentages."""
    clear: float | None = None
    """The least value at which the effect would be as clear as the claim has it, where that is not the bound."""


class Claim(Protocol):
    """A claim of a paper as an experiment."""

    name: str
    """``C1`` to ``C13``."""
    title: str
    """What is claimed, in a few words."""
    source: str
    """Paper and section."""
    paper: str
    """The paper's figure, in a sentence."""
    seeds_for_one: int
    """How many seeds the full size takes for each one asked for: more where policies of different seeds differ much."""

    def variants(self, size: Size) -> Sequence[Variant]: ...

    def measure(self, results: Results, size: Size) -> Measured:
        """The figures of one seed, from what the variants left; runs no model."""
        ...

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        """What must hold, from the figures of all seeds."""
        ...

    def plot(self, figures: Sequence[Measured]) -> "Figure": ...

    def summary(self, figures: Sequence[Measured]) -> str:
        """Our figure, in a sentence with its interval."""
        ...

    def supporting(self) -> Sequence[Measured]:
        """Made-up figures under which the claim must be judged as reproduced."""
        ...

    def contrary(self) -> Sequence[Measured]:
        """Made-up figures under which it must be judged as not reproduced."""
        ...
