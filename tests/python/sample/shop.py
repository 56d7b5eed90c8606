"""A Celery app that knows nothing of rwork: its tasks run in whatever worker serves the queue `default`."""

import os

from celery import Celery

broker = os.environ.get("SHOP_BROKER", "redis://localhost:6379/0")
app = Celery("shop", broker=broker, backend=os.environ.get("SHOP_RESULTS", broker))
app.conf.task_default_queue = "default"


@app.task(
    name="shop.add",
    acks_late=True,
    autoretry_for=(ConnectionError,),
    retry_backoff=2,
    max_retries=5,
    soft_time_limit=10,
    time_limit=20,
)
def add(x, y):
    return x + y
