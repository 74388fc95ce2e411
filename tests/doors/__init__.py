"""A small project that comes through every door of Django: see docs/django.md."""
