"""The `rlhf` command."""

import logging
import os


def main() -> None:
    """Run the command; a UserError becomes one sentence on stderr and exit code 2."""
    # Idle OpenMP threads that spin starve their neighbours on a small or busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # On some processors it says at each start that it has not fetched a kernel from the Hub, which nobody asked for.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from sqlalchemy.exc import SQLAlchemyError

    from rlhf_dagster.cli.output import end_output, guard_output, require_output, say_error
    from rlhf_dagster.common.bounds.limits import require_known_limits
    from rlhf_dagster.common.files import disk_errors_in_sentences
    from rlhf_dagster.errors import UserError, first_line

    try:
        guard_output()
        require_known_limits()
        with disk_errors_in_sentences():
            code = _run()
        require_output()
    except UserError as error:
        say_error(str(error))
        raise SystemExit(2) from None
    except SQLAlchemyError as error:
        # Our own database says so itself (labeling/ledger); what is left is Dagster's.
        say_error(f"Dagster's records cannot be read ({first_line(error)}); `rlhf check` says more.")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        say_error("stopped; what is done stays done, run the same command again to go on.")
        raise SystemExit(130) from None
    finally:
        end_output()
    raise SystemExit(code)


def _run() -> int | str | None:
    """The exit code of the command that is asked for."""
    from rlhf_dagster.cli.app import app

    try:
        app()
    except SystemExit as done:
        return done.code
    return 0
