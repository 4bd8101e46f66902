"""Composition: settings, the HTTP application, embedded services, the command line and the translated API faces."""
