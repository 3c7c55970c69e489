"""Rooms in a Django project, for users who are logged in. A view, a signal and a logout reach the users.

The whole project is in this file.

    python examples/django_app.py migrate
    python examples/django_app.py runserver
    gunicorn -k wsthreads.gunicorn.ThreadWorker --threads 100 --chdir examples django_app:application

Open http://127.0.0.1:8000/ in two windows.
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application

from wsthreads import Request, Session, WebSocketApp

PAGE = """<!doctype html><html lang="en"><title>News</title><h1>News</h1>
{% if not user.is_authenticated %}
  <form method="post">{% csrf_token %}{{ form }} <button>Go on</button></form> <a href="/signup">Sign up</a>
{% else %}
  <form method="post" action="/announce">{% csrf_token %}<input name="text" autofocus> <button>Announce</button></form>
  <form method="post" action="/logout">{% csrf_token %}<button>Log out {{ user }}</button></form>
  <ul id="news"></ul>
  <script>
    const socket = new WebSocket(location.href.replace(/^http/, "ws") + "ws/news");
    socket.onmessage = ({ data }) => news.prepend(Object.assign(document.createElement("li"), { textContent: data }));
  </script>
{% endif %}"""

settings.configure(  # in your own project, this is settings.py
    DEBUG="runserver" in sys.argv,
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for trying it out"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    WSGI_APPLICATION=f"{__name__}.application",
    INSTALLED_APPS=["wsthreads.django", *(f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions"))],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "news.sqlite3")}},
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})],
            "context_processors": ["django.contrib.auth.context_processors.auth"],
        },
    }],
)

application = WebSocketApp(get_wsgi_application())  # in wsgi.py; the imports below need Django to be set up

from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.auth.decorators import login_required  # noqa: E402
from django.contrib.auth.forms import UserCreationForm  # noqa: E402
from django.contrib.auth.middleware import AuthenticationMiddleware  # noqa: E402
from django.contrib.auth.signals import user_logged_out  # noqa: E402
from django.contrib.auth.views import LoginView, LogoutView  # noqa: E402
from django.contrib.sessions.middleware import SessionMiddleware  # noqa: E402
from django.core.handlers.wsgi import WSGIRequest  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.db.models.signals import post_save  # noqa: E402
from django.dispatch import receiver  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import redirect  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.generic import CreateView  # noqa: E402


@application.route("/ws/news")
class News:
    """Only logged-in users may connect."""

    def on_handshake(self, request: Request) -> int | None:
        http = WSGIRequest(request.environ)
        try:
            SessionMiddleware(AuthenticationMiddleware(lambda http: HttpResponse()))(http)  # they add session and user
            if not http.user.is_authenticated:
                return 401
            request.user = http.user.get_username()
        finally:
            connections.close_all()  # otherwise this thread keeps its database connection as long as the session lasts
        return None

    def on_open(self, session: Session) -> None:
        session.room("news").join()
        session.send(f"Hello, {session.user}")


news = application.endpoint("/ws/news")


def tell(text: str) -> None:
    news.room("news").broadcast(text)


@login_required(login_url="/")
def announce(request):
    tell(f"{request.user}: {request.POST['text']}")
    return redirect("/")


@receiver(post_save, sender=get_user_model())
def welcome(instance, created, **_):
    if created:
        transaction.on_commit(lambda: tell(f"{instance} has an account now"))  # when others can see it, too


@receiver(user_logged_out)
def close_sessions(user, **_):
    """End the user's sessions on all devices. The cookie is checked only in the handshake.

    With several workers, set WSTHREADS_REDIS, so that this reaches all workers. The short ban is for a handshake that
    has passed the check and is not a session yet.
    """
    if user is not None:  # a logout without a login
        news.user(user.get_username()).close(4001, "logged out", ban_s=1)


urlpatterns = [
    path("", LoginView.as_view(template_name="page.html", next_page="/")),
    path("signup", CreateView.as_view(form_class=UserCreationForm, template_name="page.html", success_url="/")),
    path("logout", LogoutView.as_view(next_page="/")),
    path("announce", announce),
]

if __name__ == "__main__":
    execute_from_command_line()
