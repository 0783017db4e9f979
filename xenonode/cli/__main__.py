"""`python -m xenonode.cli`, and the script `xenonode`: the program, whose parts take a second to import."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the program and end the process with its status; Ctrl-C is no traceback while parts are imported, either."""
    try:
        from xenonode.cli.main import main as run
    except KeyboardInterrupt:
        print("error: interrupted; nothing was left behind", file=sys.stderr)
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
