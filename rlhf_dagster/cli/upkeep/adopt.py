"""`rlhf adopt`: a copy of a loop's folder is where the loop lives from now on, or a loop of its own."""

import shlex
from pathlib import Path

from rlhf_dagster.cli.which_loop import find_loop
from rlhf_dagster.loop.guards.place import adopt_copy, make_loop_of_its_own


def adopt_folder(folder: Path, new: bool) -> None:
    """Let a copy be written to."""
    loop = find_loop(folder)
    if new:
        make_loop_of_its_own(loop)
        print(f"{loop.root} is a loop of its own, with what it was copied with.")
    else:
        print(f"The loop lives in {loop.root} from now on. {adopt_copy(loop)}".rstrip())
    print(f"  next       rlhf doctor {shlex.quote(str(folder))}")
