"""The Django application ``wsthreads.django``, and its system checks."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.management import get_commands

__all__ = ["WSThreadsConfig"]

_COMMAND = "wsthreads.django"


class WSThreadsConfig(AppConfig):  # type: ignore[misc]  # Django has no annotations
    name = "wsthreads.django"
    label = "wsthreads"

    def ready(self) -> None:
        checks.register(check_runserver)


def check_runserver(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Return a warning if ``manage.py runserver`` will not serve WebSockets."""
    found = []
    owner = get_commands()["runserver"]
    if owner != _COMMAND:
        found.append(
            checks.Warning(
                f"manage.py runserver is the command of {owner}, which answers all WebSockets with 501.",
                hint=f'In INSTALLED_APPS, put "{_COMMAND}" before "{owner}".',
                id="wsthreads.W001",
            )
        )
    if not getattr(settings, "WSGI_APPLICATION", None):
        found.append(
            checks.Warning(
                "WSGI_APPLICATION is not set, so runserver does not use the WebSocketApp; its endpoints are 404.",
                hint='Set it to your WebSocketApp, such as WSGI_APPLICATION = "mysite.wsgi.application".',
                id="wsthreads.W002",
            )
        )
    return found
