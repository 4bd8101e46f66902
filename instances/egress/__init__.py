"""The one way out: HTTP calls made for tenants (`call_api`, scripts' `fetch`, webhooks).

A tenant chooses the URL, so every address is checked where it is used: a name is resolved once per connection, each of
its addresses must be allowed, and the connection goes to the checked address itself. TLS and `Host` keep the name.
No proxies from the environment, no cookies, no redirects unless asked for (each is checked again).

policy      which URLs and addresses may be called      gate        names into checked addresses, now
names       the resolver, shared fairly                 pool        connections, kept and bounded
connection  one HTTP/1.1 connection, on h11             messages    what is sent, and what a redirect makes of it
response    the answer, its body as it comes            decoding    compressed bodies, bounded
lanes       turns, shared fairly                        client      :class:`EgressClient`, which puts it together
"""

from instances.egress.client import EgressClient
from instances.egress.errors import EgressError, EgressFailed, EgressRefused, EgressTimeout, EgressTooLarge
from instances.egress.policy import EgressPolicy
from instances.egress.response import EgressResponse, OpenResponse

__all__ = [
    "EgressClient",
    "EgressError",
    "EgressFailed",
    "EgressPolicy",
    "EgressRefused",
    "EgressResponse",
    "EgressTimeout",
    "EgressTooLarge",
    "OpenResponse",
]
