"""Odd texts to every reader of what comes from outside.

    python -m benchmarks.fuzz [--minutes 10] [--groups imports,pages] [--readers csv] [--seed 0] [--keep FOLDER]

The readers of a group take turns with texts near to right ones for so many minutes of computing. Right is a result or
a UserError in one line; a fault is any other exception, more than 30 seconds of computing for one text, or more than
2 GiB of memory. Prints how many texts each reader got, and each kind of fault once, with the text under ``--keep``.
Exit code 1 where there was any.
"""

import argparse
import logging
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from types import FrameType

from benchmarks.fuzz.mutations import mutated
from benchmarks.fuzz.readers import Reader, readers
from rlhf_dagster.errors import UserError

GROUPS = {
    "loop.yaml": ("loop.yaml",),
    "specs": ("spec", "spec.json"),
    "imports": (
        *("judgments", "gold", "feedback", "prompts", "demonstrations", "csv", "parquet", "arrow", "gzip", "logs"),
        "exports",
    ),
    "records": ("records", "registry", "tables", "stop", "states"),
    "server answers": ("server", "annotations", "judge"),
    "pages": ("html", "pages", "templates"),
}
"""What comes from outside, by the first word of its readers' names."""
SECONDS = 30.0
MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Fault:
    reader: str
    kind: str
    """The exception, and the line of ours that it came from."""
    text: bytes
    trace: str


class TooLong(BaseException):
    """One text took too much computing. Nothing that catches exceptions catches this."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of computing for each group")
    parser.add_argument("--groups", default=",".join(GROUPS), help="with commas; default: all")
    parser.add_argument("--readers", default="", help="only these of a group, with commas; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="where texts that show a fault are kept")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    only = options.readers.split(",") if options.readers else list(readers())
    bound_memory(MEMORY)
    found = 0
    for group in options.groups.split(","):
        members = [reader for reader in members_of(group) if reader.name in only]
        found += _fuzz(members, 60 * options.minutes, options.seed, options.keep) if members else 0
    return 1 if found else 0


def members_of(group: str) -> list[Reader]:
    return [reader for name, reader in readers().items() if name.split(" ")[0] in GROUPS[group]]


def _fuzz(members: Sequence[Reader], seconds: float, seed: int, keep: Path) -> int:
    """Give readers texts in turns for so many seconds of computing; how many kinds of faults there were."""
    faults: dict[tuple[str, str], Fault] = {}
    rows = {reader.name: faults_of(reader, seed) for reader in members}
    counts, end = dict.fromkeys(rows, 0), time.process_time() + seconds
    for name in cycle(rows):
        fault = next(rows[name])
        counts[name] += 1
        if fault is not None and (name, fault.kind) not in faults:
            faults[name, fault.kind] = fault
            _keep(fault, keep, len(faults))
        if time.process_time() > end:
            break
    for name, count in counts.items():
        kinds = sum(reader == name for reader, _ in faults)
        print(f"{name:<24} {count:>8,} texts  {kinds} kinds of fault", flush=True)
    return len(faults)


def faults_of(reader: Reader, seed: int) -> Iterator[Fault | None]:
    """The fault that each text of an endless row shows, None where it is read right or refused in a sentence."""
    random = Random(f"{reader.name} {seed}")
    while True:
        text = random.choice(reader.seeds)
        for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
            text = mutated(text, random)
        yield fault_in(reader, text)


def fault_in(reader: Reader, text: bytes) -> Fault | None:
    signal.signal(signal.SIGPROF, _too_long)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            reader.read(text, Path(name))
        except UserError as error:
            return Fault(reader.name, "a sentence of several lines", text, str(error)) if "\n" in str(error) else None
        except (Exception, TooLong) as error:
            return Fault(reader.name, _kind(error), text, traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def bound_memory(most: int) -> None:
    """Leave this process so many bytes besides those that it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    now = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + most, now + most))


def _kind(error: BaseException) -> str:
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "rlhf_dagster/" in frame.filename]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {where}"


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def _keep(fault: Fault, folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{fault.reader.replace(' ', '_')}-{number}"
    file.write_bytes(fault.text)
    print(f"{fault.reader}: {fault.kind}; the text is in {file}\n{fault.trace[-2500:]}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
