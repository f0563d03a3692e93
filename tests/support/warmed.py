"""
Imported by the server that forks processes for `trial.py`: what each of them would read anew from botocore's files.

That is 65 ms of a process that lives for 250. Nothing else comes of it: a process takes its environment with it.
"""

import os
import time

from aggregator.pipeline.clients import Clients
from aggregator.pipeline.deadlines import Deadlines

os.environ.update(
    {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
)
Clients.build(Deadlines.of(time.monotonic(), 60, 1, wall=time.time())).close()
