"""The Celery app that rwork's benchmark is held against: one task that does nothing, its result stored.

The worker is `celery -A noop worker …` with `PEER_BROKER`, `PEER_BACKEND`, `PEER_ACKS_LATE` 1 or 0, and
`PEER_PREFETCH_MULTIPLIER`. The client is

    python noop.py send         put one message into the queue: what all peers are given copies of
    python noop.py trips N      N times a send and the wait for its result; prints how long each took, in milliseconds
"""

import json
import os
import sys
import time

from celery import Celery

# Longer than any round trip on the slowest machine, in seconds.
TIMEOUT = 60

app = Celery("noop", broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_BACKEND"])
app.conf.update(
    # The same promise as rwork's: acknowledged when the result is stored.
    task_acks_late=os.environ.get("PEER_ACKS_LATE", "1") == "1",
    task_ignore_result=False,
    # So many messages in the worker's hands that none of its processes ever waits for one.
    worker_prefetch_multiplier=int(os.environ.get("PEER_PREFETCH_MULTIPLIER", "1000")),
    # Whatever takes time and is not asked for.
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_disable_rate_limits=True,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop.noop")
def noop():
    return None


def trips(count):
    noop.delay().get(timeout=TIMEOUT)
    took = []
    for _ in range(count):
        began = time.perf_counter()
        noop.delay().get(timeout=TIMEOUT)
        took.append((time.perf_counter() - began) * 1000)
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send"]:
            noop.delay()
        case ["trips", count]:
            trips(int(count))
        case other:
            sys.exit(f"expected `send` or `trips N`, got {other}")
