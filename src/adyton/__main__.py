"""``python -m adyton``: the command line."""

from adyton.cli import main

if __name__ == "__main__":
    main()
