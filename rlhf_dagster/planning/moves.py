"""Which part of a loop outgrows one host, and which one first."""

from dataclasses import dataclass

from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, number_text
from rlhf_dagster.planning.devices import IN_A_HOST


@dataclass(frozen=True)
class Part:
    """A part of a deployment: what it has to do, what one host of it does, and what is set to move it."""

    name: str
    wanted: float
    of_one_host: float
    unit: str
    how: str

    @property
    def times(self) -> float:
        """How many times over one host would have to do it."""
        return self.wanted / self.of_one_host


TOGETHER = (
    "What runs on more than one host needs its files in a bucket (`root`), its labels in Postgres (`ledger`) and a "
    "Dagster instance on Postgres first: these three move together, before any other part."
)
ONE_HOST = "Every part fits on one host: nothing has to move."


def parts_by_need(ledger: Sheet, training: Sheet, serving: Sheet, storage: Sheet, rounds: Sheet) -> list[Part]:
    """The parts, the one that outgrows a host most first."""
    in_shift = ledger.value("labels a second in one shift")
    files = storage.value("a year, if all models are kept")
    hours, days = rounds.value("hours of a round's machines") / 24, rounds.value("days of a round")
    parts = [
        Part("serving", serving.value("GPUs that serve"), IN_A_HOST, "GPUs", "servers behind a balancer (rlhf serve)"),
        Part("training", training.value("GPUs for the trainings"), IN_A_HOST, "GPUs", "trainings over several hosts"),
        Part("time", hours, days, "days of machines a round", "more GPUs than the memory asks for, or longer rounds"),
        Part(
            "label server",
            in_shift,
            constants.LABEL_STUDIO_WRITES.value,
            "labels/s",
            "Label Studio on Postgres, with more processes and cores (label_store.url)",
        ),
        Part("ledger", in_shift, constants.LEDGER_RATE.value, "labels/s", "Postgres of its own (ledger)"),
        Part(
            "files",
            files,
            constants.DISK.value,
            "GB a year",
            "a bucket (root)",
        ),
    ]
    return sorted(parts, key=lambda part: -part.times)


def advice(parts: list[Part]) -> list[str]:
    """Sentences: what moves, and in which order."""
    outgrown = [part for part in parts if part.times > 1]
    if not outgrown:
        return [ONE_HOST]
    return [TOGETHER, *map(_sentence, outgrown)]


def _sentence(part: Part) -> str:
    wanted = f"{number_text(part.wanted)} {part.unit}"
    return f"{part.name}: {part.times:,.1f} times what one host does ({wanted}); {part.how}."
