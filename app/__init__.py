"""Composition: settings, the HTTP application, embedded services, the command line and the translated API faces."""

__version__ = "0.1.0"
