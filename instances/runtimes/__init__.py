"""Runtimes: what turns a version into a running session. One protocol, several languages."""
