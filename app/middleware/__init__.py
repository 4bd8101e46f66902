"""What every HTTP request passes through before Litestar routes it, as plain ASGI.

:mod:`~app.middleware.gateway` is the one wrapper; the other modules hold one idea each: addresses of clients behind
proxies, the path, the body, compression.
"""
