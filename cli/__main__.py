"""Where the process starts, as ``phonolith`` or as ``python -m phonolith.cli``."""

import sys


def start() -> None:
    """Run the command line; Ctrl-C is one line even while modules are being imported."""
    try:
        from phonolith.cli.main import main

        main()
    except KeyboardInterrupt:
        print("phonolith: Interrupted. Run the command again.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    start()
