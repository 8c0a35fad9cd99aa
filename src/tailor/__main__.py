"""``python -m tailor``."""

from tailor.shell.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
