"""``python -m decloud_trainer`` is the command ``decloud-trainer``."""

import sys

from decloud_trainer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
