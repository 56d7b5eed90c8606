"""The Celery app of the tests: tasks by the same names as the guest `wire`, for the client and for Celery's own worker.

A worker is started with `-A app`; which broker, backend and settings it has is JSON in `RWORK_TESTS_APP`, the folder of
gates and of the log in `RWORK_TESTS_FOLDER`.
"""

import functools
import json
import os
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

# How often a held task looks whether it may go on.
LOOK_EVERY = 0.005

logger = get_task_logger("tests")


class KnownError(Exception):
    """An exception class that the client has imported."""

    def __init__(self, text, code):
        super().__init__(text, code)
        self.text = text
        self.code = code


def folder():
    return Path(os.environ["RWORK_TESTS_FOLDER"])


def note(word, number, node):
    """One write of one line, as the guest does it: lines of several workers never mix."""
    line = f"{word} {number} {node} {int(time.time() * 1000)}\n".encode()
    log = os.open(folder() / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(log, line)
    finally:
        os.close(log)


def wait_for(gate):
    while not (folder() / gate).exists():
        time.sleep(LOOK_EVERY)


def build(config):
    """An app with the settings in `config`, a dict of Celery's setting names."""
    app = Celery("wire", set_as_current=False)
    app.conf.update(config)
    # Not shared: each app of a process has tasks of its own.
    task = functools.partial(app.task, shared=False)

    @task(name="wire.add")
    def add(x, y):
        return x + y

    @task(name="wire.echo")
    def echo(value):
        return value

    @task(name="wire.request", bind=True)
    def request(self):
        asked = self.request
        return {
            "id": asked.id,
            "task": self.name,
            "root_id": asked.root_id,
            "parent_id": asked.parent_id,
            "retries": asked.retries,
            "redelivered": bool(asked.delivery_info.get("redelivered")),
            "queue": asked.delivery_info["routing_key"],
            "priority": asked.delivery_info.get("priority"),
            "hostname": asked.hostname,
            "correlation_id": asked.correlation_id,
            "reply_to": asked.reply_to,
            "timelimit": asked.timelimit,
            "headers": asked.headers,
        }

    @task(name="wire.fail")
    def fail(kind, module, args):
        known = {"KnownError": KnownError, "ValueError": ValueError, "KeyError": KeyError}
        raise (known.get(kind) or type(kind, (Exception,), {"__module__": module}))(*args)

    @task(name="wire.retry", bind=True, max_retries=None)
    def retry(self, times, seconds):
        if self.request.retries < times:
            raise self.retry(countdown=seconds)
        headers = self.request.headers or {}
        return {"retries": self.request.retries, "x-trace": headers.get("x-trace"), "x-death": "x-death" in headers}

    @task(name="wire.progress", bind=True)
    def progress(self, state, meta, gate):
        self.update_state(state=state, meta=meta)
        wait_for(gate)
        return "done"

    @task(name="wire.hold", bind=True, acks_late=True)
    def hold(self, number, gate):
        note("start", number, self.request.hostname)
        logger.warning("holding %s", number)
        wait_for(gate)
        note("end", number, self.request.hostname)
        redelivered = bool(self.request.delivery_info.get("redelivered"))
        return {"number": number, "redelivered": redelivered, "node": self.request.hostname}

    @task(name="wire.early", bind=True, acks_late=False)
    def early(self, number, gate):
        note("start", number, self.request.hostname)
        wait_for(gate)
        note("end", number, self.request.hostname)
        return number

    @task(name="wire.last", bind=True, acks_late=True)
    def last(self, number, seconds):
        note("start", number, self.request.hostname)
        time.sleep(seconds)
        note("end", number, self.request.hostname)
        return number

    @task(name="wire.note", bind=True, acks_late=True)
    def noted(self, number):
        note("start", number, self.request.hostname)
        note("end", number, self.request.hostname)
        return self.request.hostname

    @task(name="history.run", bind=True, acks_late=True)
    def run(self, number, spins):
        note("start", number, self.request.hostname)
        # A step of the guest's loop takes a nanosecond, one of Python's a hundred times that.
        for _ in range(spins // 100):
            pass
        note("end", number, self.request.hostname)
        return number

    @task(name="history.retry", bind=True, acks_late=True, max_retries=None)
    def retry_run(self, number, spins):
        note("start", number + self.request.retries, self.request.hostname)
        for _ in range(spins // 100):
            pass
        note("end", number + self.request.retries, self.request.hostname)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return number

    @task(name="wire.big")
    def big(size):
        return "x" * size

    @task(name="wire.soft", bind=True)
    def soft(self, catch):
        try:
            while True:
                time.sleep(LOOK_EVERY)
        except SoftTimeLimitExceeded:
            if not catch:
                raise
            return "caught"

    @task(name="wire.spin")
    def spin():
        while True:
            pass

    @task(name="wire.reject", bind=True, acks_late=True)
    def reject(self, requeue):
        if requeue and self.request.delivery_info.get("redelivered"):
            return "came again"
        raise Reject("unwanted", requeue=requeue)

    @task(name="wire.ignore")
    def ignore():
        raise Ignore()

    @task(name="wire.quiet", ignore_result=True)
    def quiet(fails):
        if fails:
            raise ValueError("quietly")
        return 1

    @task(name="wire.quiet_errors", ignore_result=True, store_errors_even_if_ignored=True)
    def quiet_errors():
        raise ValueError("stored all the same")

    @task(name="wire.tracked", track_started=True)
    def tracked(gate):
        wait_for(gate)
        return "done"

    @task(name="wire.collect")
    def collect(*args, **kwargs):
        return [list(args), kwargs]

    @task(name="wire.handled")
    def handled(task_id):
        """With one parameter, an errback is a task like any other; with more, Celery calls it within the worker."""
        return task_id

    return app


if "RWORK_TESTS_APP" in os.environ:
    app = build(json.loads(os.environ["RWORK_TESTS_APP"]))
