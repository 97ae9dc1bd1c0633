"""`python -m segq` is the command `segq`."""

from segq.cli import main

if __name__ == "__main__":  # a spawned child imports this module again under another name
    main()
