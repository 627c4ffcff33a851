"""`python -m opsin`: the command."""

from __future__ import annotations

from opsin.cli.main import main

if __name__ == "__main__":
    main()
