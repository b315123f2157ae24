"""The code location: the loop in the folder `$RLHF_LOOP`, or else the loops declared under `defs/`."""

import os
from pathlib import Path

import dagster as dg

from rlhf_dagster.automation.instance import SERVED_LOOP


@dg.definitions
def defs() -> dg.Definitions:
    folder = os.environ.get(SERVED_LOOP) or os.environ.get("RLHF_LOOP")
    if not folder:
        return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    from rlhf_dagster.build import build_loop
    from rlhf_dagster.loop.folder import LoopFolder

    loop = LoopFolder.open(Path(folder))
    alone = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(build_loop(loop.config, loop.root), alone)
