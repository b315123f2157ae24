"""What strangers bring: members, checkpoints, templates, imports, folders and environments that mean harm.

    python -m benchmarks.hostile [--only GROUP] [--case PART] [--seconds 10] [--mib 1024]

Each case runs in a process that is forked from one that has imported everything, with secrets in its environment and
in a folder of its own. It passes where what the stranger brought is refused in a sentence (exit code 2, or a
UserError; a file of bad rows has one for each), or is taken where it is harmless, and

* no code of the stranger has run: its code would make a file, which is not there;
* no secret is in the output or in a file;
* the loop, where there is one, keeps the same files, and nobody has pulled its cord;
* it took at most so many seconds of computing, by itself and by its children, and at most so much memory: resident,
  its peak (`VmHWM`, set back when the case begins) less what it had then, or the peak of the largest of its children.

A process that takes two minutes by the clock is ended, and that is a fault, too. Prints a line for each group and each
fault; exit code 1 where there was any.
"""

import argparse
import gc
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile import checkpoints, environments, folders, imports, members, templates
from benchmarks.hostile.case import SECRET, SECRETS, Case, Place, files_with, state_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.storage.local import LocalStore

GROUPS: Mapping[str, Sequence[Case]] = {
    "members": members.CASES,
    "checkpoints": checkpoints.CASES,
    "templates": templates.CASES,
    "imports": imports.CASES,
    "folders": folders.CASES,
    "environments": environments.CASES,
}
PATIENCE = 120
"""Seconds by the clock after which a case is ended."""
LINES, LONGEST = 6, 1000
"""Of what a command says: a sentence for the file, or one for each bad row and what came of all."""
ADDRESS_SPACE = 8 << 30
"""Bytes beyond those at its start that a case may map: what takes more is a fault and does no harm to the machine."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended, with what it took."""

    wrong: list[str]
    seconds: float
    """Of computing."""
    clock: float
    mib: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(GROUPS), help="one group")
    parser.add_argument("--case", default="", help="cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--mib", type=float, default=1024.0)
    parser.add_argument("--show", action="store_true", help="every case, with what it took")
    options = parser.parse_args()
    prepare_imports()
    with tempfile.TemporaryDirectory(prefix="hostile-") as shared:
        return report_of(options, Path(shared))


def report_of(options: argparse.Namespace, shared: Path) -> int:
    faults, total = 0, 0
    for group, cases in GROUPS.items():
        if options.only not in (None, group):
            continue
        chosen = [case for case in cases if options.case in case.name]
        require_distinct(chosen)
        outcomes = []
        for case in chosen:
            outcome = run(case, shared)
            wrong = [*outcome.wrong, *too_much(outcome, options.seconds, options.mib)]
            outcomes.append(outcome)
            faults += bool(wrong)
            if wrong or options.show:
                print(f"  {group}: {case.name}: {took(outcome)} {'; '.join(wrong)}", flush=True)
        total += len(chosen)
        most = max((outcome.seconds for outcome in outcomes), default=0.0)
        clock = max((outcome.clock for outcome in outcomes), default=0.0)
        mib = max((outcome.mib for outcome in outcomes), default=0.0)
        print(f"{group:<14}{len(chosen):>5} cases, at most {most:.1f} s ({clock:.1f} s by the clock), {mib:,.0f} MiB")
    print(f"{total} cases, {faults} faults", flush=True)
    return 1 if faults else 0


def took(outcome: Outcome) -> str:
    return f"{outcome.seconds:.1f} s, {outcome.clock:.1f} s by the clock, {outcome.mib:,.0f} MiB"


def too_much(outcome: Outcome, seconds: float, mib: float) -> list[str]:
    said = [f"more than {seconds:g} s"] if outcome.seconds > seconds else []
    return said + ([f"more than {mib:,.0f} MiB"] if outcome.mib > mib else [])


def require_distinct(cases: Sequence[Case]) -> None:
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise ValueError(f"cases of one name: {twice}")


def prepare_imports() -> None:
    """What every case needs, so that no case is measured with it."""
    import transformers.models.auto.modeling_auto
    import transformers.models.llama.modeling_llama  # noqa: F401

    import rlhf_dagster.automation.instance
    import rlhf_dagster.cli.app
    import rlhf_dagster.training.pretraining.base_model  # noqa: F401

    gc.collect()
    gc.freeze()


def run(case: Case, shared: Path) -> Outcome:
    """The outcome of a case in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as name:
        place, said, report = Place(Path(name, "case"), shared), Path(name, "said"), Path(name, "report")
        place.folder.mkdir()
        began = time.monotonic()
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            try:
                _child(case, place, said, report)
            except BaseException:
                report.write_text(f"0 0 0\nit could not be tried: {' '.join(traceback.format_exc()[-900:].split())}")
            finally:
                os._exit(0)
        if not _ended(process):
            return Outcome(["it never ends"], 0.0, time.monotonic() - began, 0.0)
        lines = (
            report.read_text(encoding="utf-8").splitlines() if report.exists() else ["0 0 0", "it killed its process"]
        )
        seconds, clock, mib = map(float, lines[0].split())
        return Outcome(lines[1:], seconds, clock, mib)


def _ended(process: int) -> bool:
    """Whether it did so by itself; all that it started ends with it."""
    deadline, ended = time.monotonic() + PATIENCE, False
    while not ended and time.monotonic() < deadline:
        ended = os.waitpid(process, os.WNOHANG)[0] != 0
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    if not ended:
        os.waitpid(process, 0)
    return ended


def _child(case: Case, place: Place, said: Path, report: Path) -> None:
    output = os.open(said, os.O_CREAT | os.O_WRONLY, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(place.folder)
    os.environ |= dict.fromkeys(SECRETS, SECRET) | {"RLHF_CACHE": str(place.folder / "cache")}
    case.prepare(place)
    before = state_of(place.loop) if place.loop.is_dir() else ""
    begun, base = time.monotonic(), _begin()
    wrong = _acted(case, place, said)
    took = f"{_computed() - base[1]:.3f} {time.monotonic() - begun:.3f} {_own_mib(base[0]):.1f}"
    sys.stdout.flush()
    sys.stderr.flush()
    wrong += _afterwards(place, said, before)
    report.write_text("\n".join([took, *(" ".join(line.split()) for line in wrong)]), encoding="utf-8")


def _begin() -> tuple[float, float]:
    """Resident MiB and seconds of computing at the start, from which the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    mapped = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (int(mapped * 2**20) + ADDRESS_SPACE,) * 2)
    return _status("VmRSS"), _computed()


def _acted(case: Case, place: Place, said: Path) -> list[str]:
    """What is wrong with how the case was answered."""
    start = said.stat().st_size
    try:
        case.act(place)
    except UserError as error:
        return _of_sentence(case, str(error))
    except SystemExit as ended:
        text = said.read_bytes()[start:].decode(errors="replace")
        if case.harmless or (not ended.code and case.harmless is None):
            return [] if not ended.code else [f"exit code {ended.code}: {text[-500:]}"]
        if ended.code != 2:
            return [f"exit code {ended.code}, not 2: {text[-500:]}"]
        return _of_sentence(case, text.strip())
    except BaseException as error:
        return [f"{type(error).__name__}: {traceback.format_exc()[-1500:]}"]
    return ["it was taken"] if case.harmless is False else []


def _of_sentence(case: Case, sentence: str) -> list[str]:
    wrong = [f"refused, and should not be: {sentence[:500]}"] if case.harmless else []
    lines = sentence.splitlines()
    if "Traceback" in sentence or not 0 < len(lines) <= LINES or max(map(len, lines)) > LONGEST:
        wrong.append(f"no sentence: {sentence[:300]} ... {sentence[-300:]}")
    if case.says and not re.search(case.says, sentence):
        wrong.append(f"does not say {case.says!r}: {sentence[:500]}")
    return wrong


def _afterwards(place: Place, said: Path, before: str) -> list[str]:
    wrong = ["code of a stranger ran"] if place.canary.exists() else []
    wrong += ["a secret was said"] if SECRET.encode() in said.read_bytes() else []
    wrong += [f"a secret is in {name}" for name in files_with(place.folder, SECRET)]
    if before:
        wrong += ["the loop has changed"] if state_of(place.loop) != before else []
        wrong += ["the loop was stopped"] if read_stop(LocalStore(place.loop)) is not None else []
    return wrong


def _computed() -> float:
    """Seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _own_mib(base: float) -> float:
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return max(_status("VmHWM") - base, largest)


def _status(name: str) -> float:
    """MiB."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
