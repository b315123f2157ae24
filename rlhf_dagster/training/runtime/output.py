"""Where a training writes its model: whole or not at all, once for all ranks."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.lineage.model_folders import replacing


@contextmanager
def writing_output(output: Path) -> Iterator[Path]:
    """A folder for the model, which takes the place of ``output`` at the end (:func:`replacing`).

    That is so on the main rank; other ranks get a temporary folder, and wait until the main rank is done.

    Raises:
        UserError: the disk is full, or cannot be written; the states of the training are still there.
    """
    from safetensors import SafetensorError

    from rlhf_dagster.training.runtime.distributed import barrier, is_main

    try:
        with replacing(output) if is_main() else tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except Exception as error:
        # A tokenizer raises what the system says as a plain Exception.
        plain = type(error) is Exception and "(os error " in str(error)
        if not (plain or isinstance(error, OSError | SafetensorError)):
            raise
        raise UserError(
            f"{output}: the trained model cannot be written ({first_line(error)}); mend that and train again, "
            "which goes on from the last state."
        ) from None
    barrier()
