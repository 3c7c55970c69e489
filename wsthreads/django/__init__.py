"""Django: ``runserver`` with WebSockets, and a live server for tests.

Put ``"wsthreads.django"`` first in INSTALLED_APPS. Then ``manage.py runserver`` also serves WebSockets.

A system check (``manage.py check``) warns if another application's runserver is used instead. `wsthreads.django.test`
is for tests. Like runserver, this package is for development only. Production needs only gunicorn.
"""
