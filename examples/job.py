"""A broadcast from a process that serves nobody, such as a Celery worker or a cron job, by way of a Redis.

    WSTHREADS_REDIS=redis://localhost flask --app examples/flask_app.py run
    WSTHREADS_REDIS=redis://localhost python examples/job.py 'The report is ready'

For a shell there is: wsthreads publish news '{"type": "announcement", "text": "Hello"}' --endpoint /ws/news
"""

import json
import os
import sys

from wsthreads import RedisBroker

news = RedisBroker(os.environ["WSTHREADS_REDIS"]).room("/ws/news", "news")  # it connects when it is used, forked or not


def tell_when_done(text: str) -> None:
    """With Celery, this is a @shared_task. It raises BrokerError, for a retry, where Redis has not got the message."""
    news.broadcast(json.dumps({"type": "announcement", "text": text}))


if __name__ == "__main__":
    tell_when_done(sys.argv[1])
