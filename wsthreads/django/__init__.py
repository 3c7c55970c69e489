"""Django: ``runserver`` with WebSockets, and a live server for tests.

Put ``"wsthreads.django"`` first in INSTALLED_APPS, and ``manage.py runserver`` serves WebSockets, too.

A system check, ``manage.py check``, warns where another application's runserver comes before it. For tests there is
`wsthreads.django.test`. It is for development, as runserver is. Production needs nothing of this, only gunicorn.
"""
