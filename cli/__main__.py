"""``python -m phonolith.cli``: the same as the ``phonolith`` command."""

from phonolith.cli.main import main

main()
