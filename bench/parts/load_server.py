"""The broker of ``bench/load.py`` and ``bench/memory.py`` as it is in earnest: all its processes, settings as JSON in the first argument."""

from __future__ import annotations

import json
import sys

from adyton.broker.running import server
from adyton.broker.settings import Settings

if __name__ == "__main__":
    server.serve(Settings(**json.loads(sys.argv[1])), lambda told: print(told.url, flush=True))
