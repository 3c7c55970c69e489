"""Support for Django: ``runserver`` with WebSockets, and a live server for tests.

Put ``"wsthreads.django"`` first in INSTALLED_APPS. Then ``manage.py runserver`` also serves WebSockets.

A system check (``manage.py check``) warns if the runserver of another application is used. `wsthreads.django.test` is
for tests. Like runserver, this package is only for development. In production, gunicorn serves a Django project without
this package.
"""
