"""What a replication runs: every variant that its claims ask for once for each seed, and what waits for what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_dagster.config.text import commented_yaml
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.base import Claim, Probe, Size, Variant
from rlhf_dagster.replication.probes.kept import probe_is_taken
from rlhf_dagster.replication.running.requests import RunRequest
from rlhf_dagster.replication.variants.forks import require_same_beginning
from rlhf_dagster.replication.variants.loops import VariantLoop
from rlhf_dagster.replication.variants.made import all_made
from rlhf_dagster.replication.variants.steps import Step, first_steps

VARIANTS_FOLDER, BEGINNINGS_FOLDER = "variants", "beginnings"


@dataclass
class VariantWork:
    """One variant with one seed, for all claims that ask for it."""

    loop: VariantLoop
    folder: Path
    probes: list[Probe] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    """Names of the claims that look at it; none where others only begin with it."""
    begins_from: "VariantWork | None" = None
    """Whose beginning it takes over."""
    begins_after: str = ""
    keep: dict[str, Path] = field(default_factory=dict)
    """By asset after which others go on, where it keeps the loop as it is then."""

    @property
    def title(self) -> str:
        return self.loop.title

    @property
    def steps(self) -> Sequence[Step]:
        """To its end, or only as far as others begin with it."""
        if self.claims:
            return self.loop.steps
        beginnings = [first_steps(self.loop.steps, asset) for asset in self.keep]
        return max(beginnings, key=lambda steps: sum(len(step.assets) for step in steps))

    @property
    def beginning(self) -> Path | None:
        """Where that is which it takes over, once it is kept."""
        return self.begins_from.keep[self.begins_after] if self.begins_from else None

    def is_done(self) -> bool:
        """Whether all is there that it is to make."""
        if not self.folder.exists():
            return False
        probed = all(probe_is_taken(self.folder, probe) for probe in self.probes)
        return probed and all_made(LoopFolder(self.loop.config, self.folder), self.steps)

    def waits_for(self) -> "VariantWork | None":
        """The work that has to keep a beginning before this one can start."""
        beginning = self.beginning
        return self.begins_from if beginning and not beginning.exists() and not self.folder.exists() else None

    def request(self) -> RunRequest:
        """What a worker is asked, now that nothing is waited for; UserError where what it must begin with is gone."""
        beginning, anew = self.beginning, self.loop.variant.anew
        kept = beginning if beginning and beginning.exists() else None
        if anew and self.begins_from and not (kept or self.folder.exists()):
            raise UserError(
                f"{self.title} needs what {self.begins_from.title} kept after {self.begins_after}, and {beginning} "
                f"is gone; delete {self.begins_from.folder}, and both are run again."
            )
        settings = commented_yaml(self.loop.settings)
        return RunRequest(self.folder, settings, self.steps, kept, anew, self.keep, self.probes)


@dataclass(frozen=True)
class Plan:
    """The works of a replication, sources before those that begin with them."""

    out: Path
    works: Sequence[VariantWork]
    cells: Mapping[tuple[str, int], Sequence[VariantWork]]
    """By claim and seed, the works that it is measured on."""

    def unfinished(self) -> list[VariantWork]:
        """The works that are not done, with those that they still need as beginnings."""
        wanted = [work for work in self.works if work.claims and not work.is_done()]
        needed = list(wanted)
        for work in wanted:
            source = work.waits_for()
            while source is not None and source not in needed and not source.is_done():
                needed.append(source)
                source = source.waits_for()
        return [work for work in self.works if work in needed]


def make_plan(asked: Iterable[tuple[Claim, int]], size: Size, out: Path, known: Iterable[Claim]) -> Plan:
    """The works of the claims and seeds ``asked``. Beginnings are kept for all ``known`` claims, so that others can be
    added later.

    Raises UserError where a variant cannot be a loop, or takes over what it would have made in another way.
    """
    planner = _Planner(out)
    cells = {
        (claim.name, seed): [planner.wanted(variant, seed, claim.name) for variant in claim.variants(size)]
        for claim, seed in asked
    }
    works = planner.in_order()
    for seed in sorted({seed for _, seed in cells}):
        for claim in known:
            planner.keep_for(claim.variants(size), seed)
    return Plan(out, works, cells)


@dataclass
class _Planner:
    out: Path
    _works: dict[str, VariantWork] = field(default_factory=dict)

    def wanted(self, variant: Variant, seed: int, claim: str) -> VariantWork:
        work = self._add(VariantLoop(variant, seed))
        work.claims += [claim] if claim not in work.claims else []
        return work

    def in_order(self) -> list[VariantWork]:
        return sorted(self._works.values(), key=_depth)

    def keep_for(self, variants: Iterable[Variant], seed: int) -> None:
        """Have works keep what variants would begin with that are not planned now."""
        for variant in variants:
            if variant.forks is not None:
                source = self._works.get(VariantLoop(variant.forks, seed).identity)
                if source is not None:
                    self._keep(source, variant.after)
                self.keep_for([variant.forks], seed)

    def _add(self, loop: VariantLoop) -> VariantWork:
        work = self._works.get(loop.identity)
        if work is None:
            work = self._works[loop.identity] = VariantWork(loop, self._folder_of(loop))
        work.probes += [probe for probe in loop.probes if probe not in work.probes]
        forks, after = loop.variant.forks, loop.variant.after
        if forks is not None and work.begins_from is None:
            source = self._add(VariantLoop(forks, loop.seed))
            require_same_beginning(loop, source.loop, after)
            self._keep(source, after)
            work.begins_from, work.begins_after = source, after
        return work

    def _folder_of(self, loop: VariantLoop) -> Path:
        """The folder of the same loop, whatever its name was; what is run once is not run again under another name."""
        folder = self.out / VARIANTS_FOLDER
        there = sorted(folder.glob(f"*-{loop.seed}-{loop.identity}"))
        return there[0] if there else folder / loop.folder_name

    def _keep(self, source: VariantWork, after: str) -> None:
        source.keep[after] = self.out / BEGINNINGS_FOLDER / f"{source.folder.name}-{after}"


def _depth(work: VariantWork) -> int:
    return 0 if work.begins_from is None else 1 + _depth(work.begins_from)
