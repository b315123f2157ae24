"""The finished variants of one claim and one seed, as its measures see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.base import Variant
from rlhf_dagster.replication.probes.kept import read_probe
from rlhf_dagster.replication.variants.loops import VariantLoop


@dataclass(frozen=True)
class FinishedVariants:
    """See :class:`~rlhf_dagster.replication.base.Results`."""

    seed: int
    folders: Mapping[str, Path]
    """By :attr:`VariantLoop.identity`, where each is."""

    def loop(self, variant: Variant) -> LoopFolder:
        """The loop that the variant has become; raises KeyError for one that its claim has not named."""
        one = VariantLoop(variant, self.seed)
        return LoopFolder(one.config, self.folders[one.identity].resolve())

    def probe(self, variant: Variant, name: str) -> Any:
        """What the probe of that name has measured; raises StopIteration where the variant has none."""
        wanted = next(probe for probe in variant.probes if probe.name == name)
        return read_probe(self.loop(variant).root, wanted)
