"""The code location: every loop below `defs`."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    loops = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Steps are few and long; a process for each would cost its imports.
    return dg.Definitions.merge(loops, dg.Definitions(executor=dg.in_process_executor))
