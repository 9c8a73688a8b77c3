"""Tokens: what answers a registry's challenges, each token fetched once for all who wait, and used until it expires.

No token, user name or password is in an error or a log: what is told is the token server's host.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from twisted.internet.defer import Deferred, ensureDeferred

from vault.artifact import Head, Headers
from vault.errors import BrokenAnswer, Overloaded, Refused, VaultError
from vault.formats.oci_challenge import Challenge, Grant, read_challenges, read_grant
from vault.freshness import retry_after
from vault.interfaces import Ask

K = TypeVar("K")
V = TypeVar("V")

_VISIBLE = re.compile(r"[!-~]+")

MARGIN = 60.0
"""Seconds before its end at which a token is no longer used: a request may wait before it is sent."""

REFUSED = 60.0
"""Seconds for which a token server that does not take the login is not sent it again: some then lock the account."""

REFUSALS = 3
"""Refusals in a row after which a login that was taken before is sent alone, to see if it still is."""

MOST = 4096
"""So many tokens, and so many repositories' scopes, are remembered."""


class TokenRefused(Refused):
    """The token server does not take the configured user name and password."""


class NoToken(Refused):
    """The token server gives no token for this: to nobody without a login, or not to this account.

    Docker Hub and others give none for what is private, nor for what does not exist.
    """


@dataclass(frozen=True, slots=True)
class Login:
    """A user name with its password, for the token server or a registry that asks for them itself."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization field (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is for, as a Bearer challenge names it."""

    realm: str
    service: str
    scope: str

    @property
    def url(self) -> str:
        """Where to ask for a token: each of several scopes is a parameter of its own."""
        named = [("service", self.service)] if self.service else []
        named += [("scope", one) for one in self.scope.split()]
        return self.realm + (("&" if "?" in self.realm else "?") + urlencode(named) if named else "")


class Tokens:
    """The tokens of one registry.  ``now`` gives POSIX seconds; ``fallback`` is where to ask without a challenge."""

    def __init__(self, login: Login | None, now: Callable[[], float], fallback: str | None, service: str) -> None:
        self.wrong_login = False
        """True while the registry itself does not take the user name and password."""
        self._login = login
        self._now = now
        self._fallback = fallback
        self._service = service
        self._basic = False
        self._scopes: dict[str, Scope] = {}
        self._grants: dict[Scope, Grant] = {}
        self._waiting: dict[Scope, list[Deferred[str]]] = {}
        self._sent: dict[str, str] = {}
        self._refused: dict[str, tuple[float, Refused]] = {}
        self._trying: dict[str, Deferred[None]] = {}  # the hosts to which it is sent alone
        self._taken: dict[str, int] = {}  # the hosts that have taken the login, and how often they have refused since

    def at_once(self, name: str, key: str) -> Headers:
        """The fields for a request about the repository ``name``; ``key`` tells requests apart."""
        if self._basic and self._login is not None:
            _remember(self._sent, key, self._login.basic)
            return (("Authorization", self._login.basic),)
        scope = self._scopes.get(name)
        grant = None if scope is None else self._grants.get(scope)
        if grant is None or grant.until <= self._now():
            return ()
        _remember(self._sent, key, grant.token)
        return (("Authorization", f"Bearer {grant.token}"),)

    def answered(self, key: str, status: int) -> None:
        """A request was answered after all that could be done."""
        self._sent.pop(key, None)
        if self._basic:
            self.wrong_login = status == 401

    async def answer(self, name: str, key: str, value: str, ask: Ask) -> Headers:
        """The fields that answer the challenges of ``value``; none where there is no answer."""
        challenges = read_challenges(value)
        scope = self._asked(name, challenges)
        if scope is not None:
            self._basic = False
            _remember(self._scopes, name, scope)
            return (("Authorization", f"Bearer {await self._token(scope, self._sent.pop(key, None), ask)}"),)
        if self._login is not None and any(challenge.scheme == "basic" for challenge in challenges):
            self._basic = True
            # Others may have been sent without it before the first challenge came: this one is refused if it had it.
            refused = self._sent.pop(key, None) == self._login.basic
            return () if refused else (("Authorization", self._login.basic),)
        return ()

    def _asked(self, name: str, challenges: list[Challenge]) -> Scope | None:
        wanted = f"repository:{name}:pull"
        for challenge in challenges:
            realm = challenge.parameters.get("realm") or self._fallback
            if challenge.scheme == "bearer" and realm and _VISIBLE.fullmatch(realm):
                service = challenge.parameters.get("service", "")
                return Scope(realm, service, challenge.parameters.get("scope") or wanted)
        return None if challenges or not self._fallback else Scope(self._fallback, self._service, wanted)

    async def _token(self, scope: Scope, refused: str | None, ask: Ask) -> str:
        """The token of a scope; ``refused`` is one that the registry did not take any more."""
        grant = self._grants.get(scope)
        if grant is not None and grant.token != refused and grant.until > self._now():
            return grant.token
        waiter: Deferred[str] = Deferred(lambda leaving: self._leave(scope, leaving))
        waiting = self._waiting.get(scope)
        if waiting is not None:
            waiting.append(waiter)
            return await waiter
        self._waiting[scope] = [waiter]

        def told(result: object) -> None:
            for other in self._waiting.pop(scope):
                if other.called:
                    continue  # it has left meanwhile
                other.callback(result)  # type: ignore[arg-type]  # a Failure makes it an errback

        ensureDeferred(self._fetch(scope, ask)).addBoth(told)
        return await waiter

    def _leave(self, scope: Scope, waiter: Deferred[str]) -> None:
        waiting = self._waiting.get(scope, [])
        if waiter in waiting:
            waiting.remove(waiter)

    async def _fetch(self, scope: Scope, ask: Ask) -> str:
        self._grants.pop(scope, None)
        host = urlsplit(scope.realm).netloc.rpartition("@")[2]
        fields: Headers = (("Accept", "application/json"),)
        if self._login is not None:
            # Where the login is known to be good, a refusal is about what is asked for.
            about = scope.url if host in self._taken else host
            since, said = self._refused.get(about, (float("-inf"), None))
            if said is not None and 0 <= self._now() - since < REFUSED:
                raise copy(said)
            fields += (("Authorization", self._login.basic),)
        head, body = await ask(scope.url, fields)
        now = self._now()
        if head.status == 401 and self._login is not None:
            refused = await self._login_refused(host, scope, ask, fields)
            _remember(self._refused, scope.url if host in self._taken else host, (now, refused))
            raise copy(refused)
        if head.status != 200:
            raise self._error(host, head, now)
        try:
            grant = read_grant(body, now)
        except ValueError as error:
            raise BrokenAnswer(f"the token server {host} answered with something that is no token") from error
        if self._login is not None:
            _remember(self._taken, host, 0)
        life = grant.until - now
        _remember(self._grants, scope, Grant(grant.token, grant.until - min(MARGIN, life / 4)))
        return grant.token

    async def _login_refused(self, host: str, scope: Scope, ask: Ask, fields: Headers) -> Refused:
        """What a 401 to the login means: it is of what was asked for, or of the login itself.

        Where the login was taken before, a few refusals are the former; then the login is sent alone, which tells.
        """
        said = f"the token server {host} answered 401"
        if host in self._taken:
            self._taken[host] += 1
            if self._taken[host] > REFUSALS and host not in self._trying:
                trying = ensureDeferred(self._try_alone(host, replace(scope, scope="").url, ask, fields))
                if not trying.called:
                    self._trying[host] = trying
            if host in self._trying:
                waiter: Deferred[None] = Deferred()
                self._trying[host].addBoth(lambda over: waiter.callback(None))
                await waiter
        if host in self._taken:
            return NoToken(f"{said}: there is no such image, or none that the backend's account may have")
        return TokenRefused(f"{said}: it does not take the backend's username and password; check them")

    async def _try_alone(self, host: str, url: str, ask: Ask, fields: Headers) -> None:
        """See whether the login is still taken; where that cannot be found out now, it is tried after as many again."""
        try:
            head, _ = await ask(url, fields)
            if head.status == 401:
                self._taken.pop(host, None)
        except VaultError:
            pass
        finally:
            self._trying.pop(host, None)
            if host in self._taken:
                self._taken[host] = 0

    def _error(self, host: str, head: Head, now: float) -> VaultError:
        said = f"the token server {host} answered {head.status}"
        if head.status in (401, 403):
            if self._login is None:
                return NoToken(f"{said}: it gives no token without a user name and password")
            return NoToken(f"{said}: there is no such image, or none that the backend's account may have")
        if head.status == 429 or head.status >= 500:
            return Overloaded(said, retry_after(head, now))
        return BrokenAnswer(f"{said}, which the vault did not expect")


def _remember(table: dict[K, V], key: K, value: V) -> None:
    """Put into a bounded table; what was put in first goes first."""
    table.pop(key, None)
    table[key] = value
    if len(table) > MOST:
        del table[next(iter(table))]
