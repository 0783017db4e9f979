"""`python -m xenonode.cli`, and the script `xenonode`: the program, whose parts take a second to import."""

from __future__ import annotations

import json
import sys

INTERRUPTED = 130
"""The status of a command that Ctrl-C ended, as shells have it."""


def main() -> None:
    """Run the program and end the process with its status; Ctrl-C is no traceback while parts are imported, either."""
    try:
        from xenonode.cli.main import main as run
    except KeyboardInterrupt:
        told = {"code": "interrupted", "message": "interrupted; nothing was left behind", "next_step": ""}
        if sys.stderr is not None:
            print(json.dumps(told) if "--json" in sys.argv else f"error: {told['message']}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
