"""What a training says of its settings, in the names that they have where an arm borrows the training."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rlhf_dagster.compute.work import Trained, TrainingFailed
from rlhf_dagster.errors import UserError


@dataclass(frozen=True)
class OwnNames:
    """Settings ``names`` that a training calls ``section``.NAME and the loop ``arm``.NAME."""

    section: str
    arm: str
    names: Collection[str]

    def in_text(self, text: str) -> str:
        """The text with the loop's names; modules of Python, such as ``training.ppo.train``, stay."""
        names = "|".join(map(re.escape, self.names))
        return re.sub(rf"(?<![\w.]){self.section}\.(?=(?:{names})\b)", f"{self.arm}.", text)

    def in_warnings(self, trained: Trained) -> Trained:
        """A finished training whose warnings have the loop's names."""
        said = [self.in_text(warning) for warning in trained.result.warnings]
        return replace(trained, result=replace(trained.result, warnings=said))

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """What is raised inside as a sentence for people is raised with the loop's names."""
        try:
            yield
        except (UserError, TrainingFailed) as error:
            raise type(error)(self.in_text(str(error))) from None
