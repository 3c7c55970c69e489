"""For Django: with ``"wsthreads.django"`` first in INSTALLED_APPS, ``manage.py runserver`` serves WebSockets, too.

It is for development, as runserver is. Production needs nothing of this, only gunicorn.
"""
