"""The command `rlhf init`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlhf_dagster.automation.instance import open_instance, prepare_home
from rlhf_dagster.automation.interventions.imported_round import open_imported
from rlhf_dagster.cli.data.imports import RowsRead, show_import
from rlhf_dagster.cli.start.checks import first_diagnoses, on_few_prompts
from rlhf_dagster.cli.start.new_loop import ON_A_PAGE, DataFile, NewLoop
from rlhf_dagster.cli.start.starters import Starter, for_labels, for_prompts, starter_of
from rlhf_dagster.cli.which_loop import find_loop
from rlhf_dagster.common.progress import listening
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig
from rlhf_dagster.config.text import chosen_yaml, commented_yaml
from rlhf_dagster.data.import_file import ImportOptions, import_file
from rlhf_dagster.data.tables import build_prompts
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LEDGER_FILE, LedgerAddress
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.imports import failed_import, import_into
from rlhf_dagster.loop.labels import kept_from_training
from rlhf_dagster.loop.upkeep.doctor import Diagnosis
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.storage.known import open_store

COMPARISONS_SENT, COMPARISONS_READ = "comparisons for the annotators", "the round of what was judged already"


def init_loop(folder: Path, wanted: NewLoop, all_settings: bool = False) -> None:
    """Make a loop in a folder, bring its data in, look whether it can begin, and say what comes next.

    Raises UserError, before anything is written, where there is a loop, or where data or model cannot be used.
    """
    path = folder / CONFIG_FILE
    if path.exists():
        raise UserError(f"{path} exists already; edit it, or choose another folder.")
    chosen = starter_of(wanted, folder)
    with listening(RowsRead()):
        for file in wanted.files:
            _require_readable(file)
        loop = LoopFolder(LoopConfig(**chosen.settings), folder.resolve())
        prepare_home(folder)
        for file in wanted.files:
            show_import(file.kind, file.path, import_into(loop, file.kind, file.path, ImportOptions()), [])
    chosen = _for_labels(_for_what_is_there(chosen, loop, wanted), loop, wanted)
    path.write_text((commented_yaml if all_settings else chosen_yaml)(chosen.settings, chosen.reasons), "utf-8")
    for note in chosen.notes:
        print(note)
    print(f"{path} written.")
    _say_what_comes(find_loop(folder), wanted)


def _require_readable(file: DataFile) -> None:
    """Raise UserError where nothing of a file can be imported; it is only read."""
    with tempfile.TemporaryDirectory() as scratch:
        ledger = EmbeddedLabelStore(LedgerAddress.of(Path(scratch, LEDGER_FILE)))
        found = import_file(file.kind, file.path, open_store(scratch), ledger, ImportOptions(dry_run=True))
    why = failed_import(found, dry_run=True)
    if not why and found.refusals > found.read / 2:
        number, reason = found.refused[0]
        why = f"More than half of its {found.unit}s are refused, such as {found.unit} {number}: {reason}."
    if why:
        raise UserError(f"{file.path}: {why}")


def _for_what_is_there(chosen: Starter, loop: LoopFolder, wanted: NewLoop) -> Starter:
    """Settings for as many prompts as the loop has; as they are where it has none yet."""
    if not wanted.files:
        return chosen
    data = loop.config.data

    def in_test(share: float) -> int:
        config = loop.config.changed(data=data.changed(test=share))
        return int((build_prompts(config, loop.root, loop.store)["split"] == "test").sum())

    return for_prompts(chosen, in_test)


def _for_labels(chosen: Starter, loop: LoopFolder, wanted: NewLoop) -> Starter:
    """Settings for as many labels as the loop begins with: imported, or those of one person's first round."""
    config = LoopConfig(**chosen.settings)
    if _has_judgments(wanted):
        there = LoopFolder(config, loop.root)
        return for_labels(chosen, kept_from_training(there, build_prompts(config, there.root, there.store)))
    if wanted.annotators != ON_A_PAGE:
        return chosen
    return for_labels(chosen, round(config.labeling.comparisons_per_round * config.labeling.validation))


def _say_what_comes(loop: LoopFolder, wanted: NewLoop) -> None:
    found = list(first_diagnoses(loop))
    for one in found:
        print(f"  {one.about:<12} {one.sentence}")
    if said := _on_few(loop, wanted):
        print(f"  {'':<12} {said}")
    print("Next:")
    commands = list(_commands(loop, wanted, found))
    width = max(len(command) for command, _ in commands)
    for command, what in commands:
        print(f"  {command:<{width}}   {what}".rstrip())


def _on_few(loop: LoopFolder, wanted: NewLoop) -> str:
    if not wanted.files:
        return ""
    try:
        return on_few_prompts(int((build_prompts(loop.config, loop.root, loop.store)["split"] == "test").sum()))
    except UserError:  # the diagnosis has said it
        return ""


def _commands(loop: LoopFolder, wanted: NewLoop, found: list[Diagnosis]) -> Iterator[tuple[str, str]]:
    """The commands up to the first report, each with what it does."""
    option, prepare = loop.option, f"rlhf run prepare {loop.option}"
    yield from ((one.mend, f"the {one.about}") for one in found if one.mend not in ("", prepare))
    if wanted.model:
        yield f"rlhf check-model {wanted.model} {option}", "what each stage does with it, and its memory"
    yield prepare, "data, base model, SFT"
    key = _opened(loop, wanted)
    if not key:
        yield f"rlhf round open {option}", "a labelling round"
    of_round = f" --round {key}" if key else ""
    yield f"rlhf run collect_round{of_round} {option}", COMPARISONS_READ if key else COMPARISONS_SENT
    if not key and loop.config.label_store.kind == "embedded" and not loop.config.label_store.simulated_annotators:
        yield f"rlhf label {option}", "judge them"
    yield f"rlhf run train_round{of_round} {option}", "reward model, policy, report"
    yield f"rlhf ui {option}", "the same in the browser"


def _opened(loop: LoopFolder, wanted: NewLoop) -> str:
    """The round of imported judgments, which is opened; empty where there are none."""
    if not _has_judgments(wanted):
        return ""
    with open_instance(loop) as instance:
        open_imported(instance, loop)
    return IMPORT_ROUND


def _has_judgments(wanted: NewLoop) -> bool:
    return any(file.kind == "judgments" for file in wanted.files)
