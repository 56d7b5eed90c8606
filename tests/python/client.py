"""A Celery client that Rust tests talk to: one process, one JSON object a line in, one out.

    in   {"id": 1, "lane": "a", "code": "return add.delay(x, 3).get(timeout=60)", "args": {"x": 2}}
    out  {"id": 1, "value": 5}
    out  {"id": 1, "raised": {"module": "builtins", "name": "ValueError", "args": ["no"], "bases": […], "text": …}}

`code` is a function's body. It runs on the thread of its lane, one after the other, and sees what earlier code of its lane
has put into `own`, and everything of this module. A lane is opened by `open_app(config)`. Lanes run side by side.
"""

import base64
import datetime
import decimal
import faulthandler
import gc
import json
import math
import queue
import signal
import sys
import textwrap
import threading
import time
import traceback
import uuid

import celery
import kombu
from celery import chain, chord, group, signature
from celery.result import AsyncResult
from kombu import Connection, Exchange, Producer, Queue

import app as tests_app
from app import KnownError

# No answer takes so long on the slowest machine, in seconds; only a hang meets it.
T = 60

answers = threading.Lock()


def plain(value):
    """What JSON has no form for, as `{"$": type, "text": …}`; tuples as lists."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$": "float", "text": str(value)}
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(inner) for inner in value]
    if isinstance(value, BaseException):
        return {"$": "exception", **described(value)}
    return {"$": type(value).__name__, "text": str(value)}


def described(error):
    return {
        "module": type(error).__module__,
        "name": type(error).__qualname__,
        "args": plain(error.args),
        "bases": [f"{base.__module__}.{base.__qualname__}" for base in type(error).__mro__[1:]],
        "text": "".join(traceback.format_exception_only(type(error), error)).strip(),
    }


def answer(reply):
    line = json.dumps(reply)
    with answers:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Lane(threading.Thread):
    """A thread with an app of its own, which runs what it is sent in order."""

    def __init__(self):
        super().__init__(daemon=True)
        self.orders = queue.SimpleQueue()
        self.names = dict(globals())
        self.names["own"] = {}
        self.start()

    def run(self):
        while True:
            order = self.orders.get()
            if order is None:
                return
            try:
                answer({"id": order["id"], "value": plain(self.execute(order))})
            except BaseException as error:
                raised = described(error)
                raised["traceback"] = traceback.format_exc()
                answer({"id": order["id"], "raised": raised})

    def execute(self, order):
        args = order.get("args") or {}
        body = textwrap.indent(textwrap.dedent(order["code"]), "    ")
        source = f"def body({', '.join(args)}):\n{body}\n"
        names = dict(self.names)
        names.update(self.names["own"])
        exec(compile(source, f"<order {order['id']}>", "exec"), names)
        self.names["own"] = names["own"]
        return names["body"](**args)


def main():
    # `kill -USR1` shows where each thread is.
    faulthandler.register(signal.SIGUSR1)
    # An AsyncResult whose exception was raised is collected at any moment of any thread, and unsubscribes then: redis-py
    # before 6 waits for ever if that moment holds its own lock. The process lives for a minute, and results are freed
    # without the collector where there is no such cycle.
    gc.disable()
    lanes = {}
    answer({"celery": celery.__version__, "kombu": kombu.__version__})
    for line in sys.stdin:
        order = json.loads(line)
        lane = order["lane"]
        if "close" in order:
            if lane in lanes:
                lanes.pop(lane).orders.put(None)
            continue
        if lane not in lanes:
            lanes[lane] = Lane()
        lanes[lane].orders.put(order)


# --- what orders use ------------------------------------------------------------------------------------------------


def open_app(config):
    """An app with these settings, and its tasks by their short names (`add`, `hold`, …)."""
    app = tests_app.build(config)
    names = {name.split(".", 1)[1]: task for name, task in app.tasks.items() if name.startswith("wire.")}
    return {"app": app, **names}


def result(app, task_id):
    return AsyncResult(task_id, app=app)


def record(app, task_id):
    """The stored record, or None."""
    text = app.backend.get(app.backend.get_key_for_task(task_id))
    return None if text is None else json.loads(text)


def record_settings(app, task_id):
    """The time that the record has left, in seconds (None: for ever)."""
    left = app.backend.client.ttl(app.backend.get_key_for_task(task_id))
    return None if left < 0 else left


def publish(app, body, content_type="application/json", content_encoding="utf-8", headers=None, queue="celery",
            priority=0, **properties):
    """Publishes a body as it is, past Celery and its serializers, by kombu. `body`: text, or bytes."""
    with app.connection_for_write() as connection:
        producer = Producer(connection)
        producer.publish(body, exchange="", routing_key=queue, content_type=content_type,
                         content_encoding=content_encoding, headers=headers or {}, priority=priority, **properties)


def inject(app, envelope, queue="celery"):
    """Puts an envelope into a queue's list as it is, past kombu."""
    with app.connection_for_write() as connection:
        connection.default_channel.client.lpush(queue, envelope if isinstance(envelope, str) else json.dumps(envelope))


def envelope(body, headers, content_type="application/json", properties=None):
    """An envelope as kombu makes it."""
    encoded = base64.b64encode(body if isinstance(body, bytes) else body.encode()).decode()
    tag = str(uuid.uuid4())
    return {
        "body": encoded, "content-encoding": "utf-8", "content-type": content_type, "headers": headers,
        "properties": {"correlation_id": headers.get("id"), "reply_to": "", "delivery_mode": 2,
                       "delivery_info": {"exchange": "", "routing_key": "celery"}, "priority": 0,
                       "body_encoding": "base64", "delivery_tag": tag, **(properties or {})},
    }


def minimal(task, args, task_id=None, **headers):
    """A message's body and headers with nothing but what must be there."""
    return json.dumps([args, {}, {}]), {"lang": "py", "task": task, "id": task_id or str(uuid.uuid4()), **headers}


if __name__ == "__main__":
    main()
