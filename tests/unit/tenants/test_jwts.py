"""JWTs: what is ours and what is not."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
from datetime import timedelta
from uuid import UUID

import jwt
import pytest

from app.errors import NotAuthenticated
from app.settings import Settings
from tenants.clock import ManualClock
from tenants.ids import Ids
from tenants.jwts import Jwts
from tenants.keys import Keys

ACCOUNT, USER, LOGIN = UUID(int=1), UUID(int=2), UUID(int=3)
DAY = timedelta(days=1)
SETTINGS = Settings(secret="of these tests, and surely long enough")


@pytest.fixture
def jwts(clock) -> Jwts:
    return Jwts(Keys(SETTINGS), clock, Ids(clock))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def key() -> bytes:
    return Keys(SETTINGS).derive("jwt")[0]


@pytest.fixture
def genuine(jwts, key) -> dict:
    return payload(jwts.issue(ACCOUNT, USER, LOGIN, DAY, {}))


def payload(text: str) -> dict:
    middle = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def test_a_token_says_who_when_and_what_its_clients_read(jwts, clock):
    text = jwts.issue(ACCOUNT, USER, LOGIN, DAY, {"role": "viewer"})
    claims = jwts.read(text)
    assert (claims.account_id, claims.user_id, claims.login_id) == (ACCOUNT, USER, LOGIN)
    assert claims.expires_at == clock.now() + DAY
    said = payload(text)
    assert (said["role"], said["sub"], said["exp"] - said["iat"]) == ("viewer", USER.hex, 86400)
    assert jwts.read(jwts.issue(ACCOUNT, USER, LOGIN, DAY, {})).jti != claims.jti


def test_it_counts_from_its_issue_to_its_expiry_by_the_platforms_clock(jwts, clock, key, genuine):
    claims = jwts.read(jwts.issue(ACCOUNT, USER, LOGIN, DAY, {}))
    assert jwts.current(claims)
    clock.advance(86399.9)
    assert jwts.current(claims)
    clock.advance(0.1)
    assert not jwts.current(claims)
    for name in ("iat", "nbf"):
        early = jwts.read(jwt.encode({**genuine, name: genuine["iat"] + 86400 + 6}, key, algorithm="HS256"))
        early = dataclasses.replace(early, expires_at=clock.now() + DAY)
        assert not jwts.current(early), name
        clock.advance(1)
        assert jwts.current(early), name
        clock.advance(-1)


@pytest.mark.parametrize("name", ["sub", "account_id", "jti", "sid", "iat", "exp", "aud", "iss", "nbf"])
def test_nobody_else_sets_our_claims(jwts, name):
    with pytest.raises(ValueError, match=name):
        jwts.issue(ACCOUNT, USER, LOGIN, DAY, {name: "x"})


@pytest.mark.parametrize("name", ["sub", "account_id", "jti", "sid", "iat", "exp"])
@pytest.mark.parametrize("value", [None, 7.5, "x", [], {}, True, "9" * 40, float("inf"), -1, 1e300])
def test_a_claim_that_is_not_what_it_must_be_is_refused(jwts, key, genuine, name, value):
    changed = {**genuine, name: value}
    if name in ("iat", "exp") and value == 7.5:
        pytest.skip("a time")
    with pytest.raises(NotAuthenticated):
        jwts.read(sign(changed, key))
    with pytest.raises(NotAuthenticated):
        jwts.read(sign({k: v for k, v in genuine.items() if k != name}, key))


def sign(claims: dict, key: bytes, **header) -> str:
    """A token with a good signature and whatever claims; libraries refuse to make some of them."""
    signer = jwt.api_jws.PyJWS()
    return signer.encode(json.dumps(claims).encode(), key, algorithm="HS256", headers=header or None)


def by_hand(header: dict, body: str, key: bytes, digest: str) -> str:
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode() + "." + body
    signature = base64.urlsafe_b64encode(hmac.digest(key, text.encode(), digest)).rstrip(b"=").decode()
    return f"{text}.{signature}"


@pytest.mark.parametrize("extra", [{"aud": "others"}, {"aud": ["millrace"]}, {"iss": "others"}])
def test_tokens_for_or_from_others_are_refused(jwts, key, genuine, extra):
    assert jwts.read(sign(genuine, key))
    with pytest.raises(NotAuthenticated):
        jwts.read(sign({**genuine, **extra}, key))


def test_only_our_algorithm_and_key_count(jwts, key, genuine):
    header, body, signature = sign(genuine, key).split(".")
    assert jwts.read(by_hand({"alg": "HS256"}, body, key, "sha256"))
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    forged = [
        f"{unsigned}.{body}.",
        f"{unsigned}.{body}.{signature}",
        by_hand({"alg": "HS384"}, body, key, "sha384"),
        by_hand({"alg": "HS512"}, body, key, "sha512"),
        by_hand({"alg": "HS512"}, body, key, "sha256"),
        by_hand({"alg": "none"}, body, key, "sha256"),
        by_hand({"alg": "HS256", "crit": ["exp"]}, body, key, "sha256"),
        jwt.encode(genuine, b"x" * 32, algorithm="HS256"),
        jwt.encode(genuine, Keys(SETTINGS).derive("jwt refresh")[0], algorithm="HS256"),
        f"{header}.{body}.{signature[:-2]}AA",
        f"{header}.{body[:-1]}.{signature}",
    ]
    for text in forged:
        with pytest.raises(NotAuthenticated):
            jwts.read(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "a" * 9000, f"{'a' * 600}.b.{'c' * 43}", "a.b.c.d"])
def test_what_is_no_token_is_refused(jwts, text):
    with pytest.raises(NotAuthenticated):
        jwts.read(text)


def test_the_previous_secret_counts_while_it_is_rotated(jwts, clock):
    text = jwts.issue(ACCOUNT, USER, LOGIN, DAY, {})
    fresh = Settings(secret="another one, and long enough as well", secret_previous=SETTINGS.secret)
    rotated = Jwts(Keys(fresh), clock, Ids(clock))
    assert rotated.read(text).user_id == USER
    with pytest.raises(NotAuthenticated):
        jwts.read(rotated.issue(ACCOUNT, USER, LOGIN, DAY, {}))
    with pytest.raises(NotAuthenticated):
        Jwts(Keys(dataclasses.replace(fresh, secret_previous="")), clock, Ids(clock)).read(text)
