"""The command line: one command a public verb."""

import sys

from prunenas.errors import InputError, RunError

_INTERRUPTED = 130
"""What typer makes of Ctrl-C."""


def main() -> None:
    """Run the command line. Exits with 0 when done, 2 for bad input, 1 for a run that failed."""
    try:
        import prunenas.cli.search_verb
        import prunenas.cli.training_verbs
        import prunenas.cli.verbs  # noqa: F401  the verbs register themselves
        from prunenas.cli.options import app

        app()
    except SystemExit as ended:
        if ended.code != _INTERRUPTED:
            raise
        print("stopped", file=sys.stderr)
        sys.exit(1)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(1)
