"""Compilations of one test serve the next."""

from xla_cache import compiled  # noqa: F401 - a fixture that every test here uses
