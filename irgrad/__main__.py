"""``python -m irgrad`` is the command ``irgrad``."""

from irgrad.cli import main

if __name__ == "__main__":
    main()
