"""Tokens of programs, access tokens, signing keys, sign-in providers."""

from datetime import datetime

from keystead.api.types.base import Request, Response


class CreateToken(Request, frozen=True):
    """`scopes`: names of routes, or patterns such as `mailbox.*`; `lifetime`: milliseconds, none for the usual one."""

    name: str
    scopes: list[str]
    lifetime: int | None = None


class ListTokens(Request, frozen=True):
    """`upn`: of one person alone; `expired`: those that ended too, as long as they are kept."""

    upn: str = ""
    expired: bool = False


class NameToken(Request, frozen=True):
    id: str


class StoredTokenView(Response, frozen=True):
    """A token without its secret. `kind`: claim, sign-in or service; `last_used`: the day, None for never."""

    id: str
    kind: str
    upn: str
    name: str
    scopes: list[str] | None
    created: datetime
    expires: datetime
    last_used: datetime | None


class ExchangeToken(Request, frozen=True):
    """`token`: a sign-in or service token; `scopes`: none for all it has."""

    token: str
    scopes: list[str] = []


class RenewToken(Request, frozen=True):
    """`token`: a sign-in token."""

    token: str


class AccessTokenView(Response, frozen=True):
    """A signed token. `expires_in`: seconds; `scopes`: None for everything its person may do."""

    access_token: str
    expires_in: int
    expires: datetime
    scopes: list[str] | None
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme (RFC 6750)


class RotateSigningKey(Request, frozen=True):
    """`discard`: tokens signed with the keys before are void at once."""

    discard: bool = False


class SigningKeyView(Response, frozen=True):
    """One key. `signs`: whether it signs now; `ends`: when it stops verifying, None while it signs."""

    id: str
    signs: bool
    created: datetime
    ends: datetime | None


class JwkView(Response, frozen=True):
    """A public Ed25519 key (RFC 8037)."""

    kid: str
    x: str
    kty: str = "OKP"
    crv: str = "Ed25519"
    use: str = "sig"
    alg: str = "Ed25519"


class JwksView(Response, frozen=True):
    """A JSON Web Key Set (RFC 7517 section 5)."""

    keys: list[JwkView]


class SetSignInProvider(Request, frozen=True):
    """`issuer`: exactly as in its tokens; `audience`: whom they must be for; `upn_claim`: what holds the UPN."""

    issuer: str
    audience: str
    upn_claim: str = "preferred_username"
    required_claim: str = ""
    required_value: str = ""


class SignInProviderView(Response, frozen=True):
    """The tenant's own OpenID Connect provider; `id` is that of the tenant."""

    id: str
    issuer: str
    audience: str
    upn_claim: str
    required_claim: str
    required_value: str
    created: datetime
