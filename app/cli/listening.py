"""Listening sockets of the API."""

from __future__ import annotations

import errno
import socket

from app.settings import SettingsError

BACKLOG = 2048


class CannotListen(Exception):
    """The address cannot be listened on; one sentence for a person."""


def bind_address(bind: str, host: str | None, port: int | None) -> tuple[str, int]:
    """Where to listen: the options, else the setting `bind`. Raises :class:`SettingsError`."""
    set_host, _, set_port = bind.rpartition(":")
    if not set_host or not set_port.isdecimal() or int(set_port) > 65535:
        raise SettingsError(f"MILLRACE_BIND must be host:port, not {bind!r}.")
    return host or set_host.strip("[]"), int(set_port) if port is None else port


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. Raises :class:`CannotListen` when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except UnicodeError:
        raise CannotListen(f"{host!r} is no host name: choose another with --host.") from None
    except OSError as error:
        raise CannotListen(_refusal(host, port, error)) from None
    listener.setblocking(False)
    return listener


def base_url(host: str, listener: socket.socket) -> str:
    """The address a client on this machine uses for `listener`."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - every address is this machine's
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use: stop what uses it, or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} is reserved for root: choose one above 1023 with --port."
    return f"Cannot listen on {host}, port {port}: {error.strerror or error}."
