"""A broadcast through Redis, from a process without a server, such as a Celery worker or a cron job.

    WSTHREADS_REDIS=redis://localhost flask --app examples/flask_app.py run
    WSTHREADS_REDIS=redis://localhost python examples/job.py 'The report is ready'

In a shell: wsthreads publish news '{"type": "announcement", "text": "Hello"}' --endpoint /ws/news
"""

import json
import os
import sys

from wsthreads import RedisBroker

news = RedisBroker(os.environ["WSTHREADS_REDIS"]).room("/ws/news", "news")  # connects when it is first used


def tell_when_done(text: str) -> None:
    """In Celery, make this a @shared_task, and retry after a BrokerError: Redis may not have got the message."""
    news.broadcast(json.dumps({"type": "announcement", "text": text}))


if __name__ == "__main__":
    tell_when_done(sys.argv[1])
