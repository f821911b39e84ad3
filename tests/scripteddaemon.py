"""``decloud-trainer``, with scripted workers in place of those that train; for long runs by hand.

Nothing else differs from the command: its arguments, its settings and its home are the user's.
"""

from __future__ import annotations

import json
import sys

from decloud_trainer import wiring
from decloud_trainer.cli.main import main
from decloud_trainer.settings import Settings


def scripted_worker(settings: Settings) -> tuple[str, ...]:
    from decloud_trainer.jobs.supervisor import SCRIPTED_WORKER

    return (*SCRIPTED_WORKER, json.dumps({"seconds": 0.05}))


if __name__ == "__main__":
    wiring.worker_of = scripted_worker
    sys.exit(main())
