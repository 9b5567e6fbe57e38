"""The command line: one command a public verb."""

import os
import sys

from prunenas.errors import InputError, PeerError, RunError, StoppedError

_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Run the command line. Exits with 0 when done, 2 for bad input, 1 for a run that failed."""
    try:
        import prunenas.cli.generate_verb
        import prunenas.cli.measure_verb
        import prunenas.cli.search_verb
        import prunenas.cli.training_verbs
        import prunenas.cli.verbs
        import prunenas.cli.watch_verb  # noqa: F401  the verbs register themselves
        from prunenas.cli.options import app

        _refuse_torchrun(sys.argv[1:])
        app()
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        print("stopped", file=sys.stderr)
        sys.exit(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StoppedError as error:
        # As after Ctrl-C at any other time: it was asked for.
        print(error, file=sys.stderr)
        sys.exit(1)
    except PeerError:
        # The process that failed first has said why.
        sys.exit(1)
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(1)


def _refuse_torchrun(arguments: list[str]) -> None:
    """Refuse several processes for a verb that is one process's work; one of them says so."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or arguments[:1] == ["train"]:
        return
    if os.environ.get("RANK", "0") != "0":
        sys.exit(2)
    raise InputError(
        f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that this is one of several processes: only "
        "prunenas train does its work in several; start this one without torchrun"
    )
