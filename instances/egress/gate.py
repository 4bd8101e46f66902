"""From a target to the addresses it may be connected to, at this moment."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from instances.egress.errors import EgressFailed, EgressRefused
from instances.egress.names import Names
from instances.egress.policy import Address, EgressPolicy, Target, literal, not_allowed, unmapped

LOOKUP_SECONDS = 5.0
VET_SECONDS = 2.0
VETTED_SECONDS = 10.0
"""How long a verdict on a URL about to be stored is kept."""
VETTED = 1_000

_OURSELVES = object()
"""The lane in which the platform's own names are looked up."""


class Gate:
    """Lets through what the policy allows. Nothing is connected to but what :meth:`addresses` just answered."""

    def __init__(self, policy: EgressPolicy, names: Names) -> None:
        self.policy = policy
        self._names = names
        self._vetted: OrderedDict[tuple[Hashable, Hashable], tuple[float, str | None]] = OrderedDict()

    async def addresses(self, target: Target, lane: Hashable) -> list[str]:
        """Checked addresses of a target. Raises :class:`EgressRefused`, or :class:`EgressFailed` without any."""
        address = literal(target.host)
        found = [str(address)] if address is not None else await self._lookup(target.host, target.port, lane)
        checked = self.policy.check_addresses(target, found)
        await self._refuse_own(target, checked)
        return checked

    async def vet(self, url: str, lane: Hashable) -> str | None:
        """Why a URL may not be stored ("must …"), its name resolved; None when nothing is known against it.

        A name that does not resolve within 2 s passes: it is checked again at each connection.
        """
        try:
            target = self.policy.check_url(url)
            key, now = (lane, target.origin), asyncio.get_running_loop().time()
            known = self._vetted.get(key)
            if known is not None and known[0] > now:
                return known[1]
            problem = await self._problem(target, lane)
        except EgressRefused as error:
            return error.rule
        self._vetted[key] = (now + VETTED_SECONDS, problem)
        self._vetted.move_to_end(key)
        if len(self._vetted) > VETTED:
            self._vetted.popitem(last=False)
        return problem

    async def _problem(self, target: Target, lane: Hashable) -> str | None:
        try:
            async with asyncio.timeout(VET_SECONDS):
                await self.addresses(target, lane)
        except EgressRefused as error:
            return error.rule
        except (EgressFailed, TimeoutError):
            pass
        return None

    async def _lookup(self, host: str, port: int, lane: Hashable) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await self._names.lookup(host, port, lane)
        except TimeoutError:
            raise EgressFailed(f"the host name {host!r} does not resolve") from None

    async def _refuse_own(self, target: Target, addresses: Sequence[str]) -> None:
        """Refuse the platform's own services, whatever name or address of their machine leads there."""
        for host, port in self.policy.own:
            if port != target.port:
                continue
            literally = literal(host)
            known = [str(literally)] if literally else await self._lookup(host, port, _OURSELVES)
            own = {address for text in known if (address := unmapped(text)) is not None}
            here = any(_is_here(address) for address in own)
            for address in map(ipaddress.ip_address, addresses):
                if host == target.host or address in own or (here and _is_here(address)):
                    raise not_allowed()


def _is_here(address: Address) -> bool:
    """Whether an address is this machine's: only those can be bound."""
    if address.is_loopback or address.is_unspecified:
        return True
    try:
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
