"""The `rlhf` command."""

import io
import logging
import os
import sys


def main() -> None:
    """Run the command; a UserError becomes one sentence on stderr and exit code 2."""
    # Idle OpenMP threads that spin starve their neighbours on a small or busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _say_any_text()
    # On some processors it says at each start that it has not fetched a kernel from the Hub, which nobody asked for.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from sqlalchemy.exc import SQLAlchemyError

    from rlhf_dagster.cli.app import app
    from rlhf_dagster.common.bounds.limits import require_known_limits
    from rlhf_dagster.errors import UserError, first_line

    try:
        require_known_limits()
        app()
    except UserError as error:
        print(f"rlhf: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SQLAlchemyError as error:
        # Our own database says so itself (labeling/ledger); what is left is Dagster's.
        print(f"rlhf: Dagster's records cannot be read ({first_line(error)}); `rlhf check` says more.", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("rlhf: stopped; what is done stays done, run the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _say_any_text() -> None:
    """Have what the output's encoding has no characters for written as escapes: a name is no reason to end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
