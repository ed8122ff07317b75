"""Tokens, the keys access tokens are signed with, the providers of tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, insert, or_, select, update

from keystead.adapters.sql.keystead_schema import people, sign_in_providers, signing_keys, tenants, tokens
from keystead.adapters.sql.rows import Lookup, conflict
from keystead.adapters.sql.rows_tenants import roles_of
from keystead.core.access.tokens import SigningKey, SignInProvider, Token, TokenKind
from keystead.core.tenancy import Person

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# A token is one person's, in the tenant it was made for: a name that was given to somebody else meanwhile does not match.
_OWNER = and_(
    people.c.upn == tokens.c.upn,
    or_(people.c.tenant_id == tokens.c.tenant_id, and_(people.c.tenant_id.is_(None), tokens.c.tenant_id.is_(None))),
)
_PERSON = [column.label(f"person_{column.name}") for column in people.c]
_BY_DIGEST = Lookup(select(tokens, *_PERSON).outerjoin_from(tokens, people, _OWNER).where(tokens.c.digest == bindparam("digest")))
_BY_ID = Lookup(
    select(tokens, *_PERSON)
    .join_from(tokens, signing_keys, signing_keys.c.id == bindparam("key"))
    .outerjoin(people, _OWNER)
    .where(tokens.c.id == bindparam("token"))
)
_BY_PROVIDER = Lookup(
    select(sign_in_providers, *_PERSON)
    .outerjoin_from(sign_in_providers, people, and_(people.c.tenant_id == sign_in_providers.c.tenant_id, people.c.upn == bindparam("upn")))
    .where(sign_in_providers.c.tenant_id == bindparam("tenant"))
)
"""Statements of every call, built once."""


def _token(row: Any) -> Token:  # noqa: ANN401 - a row of SQLAlchemy's, or of a `Lookup`
    return Token(
        digest=row.digest,
        id=row.id,
        kind=TokenKind(row.kind),
        upn=row.upn,
        tenant_id=row.tenant_id,
        created=row.created,
        expires=row.expires,
        name=row.name,
        scopes=None if row.scopes is None else frozenset(row.scopes.split()),
        last_used=row.last_used,
    )


def _owner(row: Any) -> Person | None:  # noqa: ANN401 - as above
    if row.person_id is None:
        return None
    return Person(row.person_id, row.person_tenant_id, row.person_upn, roles_of(row.person_roles), row.person_created)


def _provider(row: Any) -> SignInProvider:  # noqa: ANN401 - as above
    return SignInProvider(
        tenant_id=row.tenant_id,
        issuer=row.issuer,
        audience=row.audience,
        upn_claim=row.upn_claim,
        required_claim=row.required_claim,
        required_value=row.required_value,
        created=row.created,
    )


class SqlSignInRows:
    """Implements ports.tx.SignInRows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- tokens --------------------------------------------------------------------------------------------------------------------

    def insert(self, token: Token) -> None:
        self._connection.execute(
            insert(tokens).values(
                digest=token.digest,
                id=token.id,
                kind=token.kind.value,
                upn=token.upn,
                tenant_id=token.tenant_id,
                name=token.name,
                scopes=None if token.scopes is None else " ".join(sorted(token.scopes)),
                created=token.created,
                expires=token.expires,
                last_used=token.last_used,
            )
        )

    def by_digest(self, digest: bytes) -> tuple[Token, Person | None] | None:
        row = _BY_DIGEST.first(self._connection, digest=digest)
        return (_token(row), _owner(row)) if row else None

    def by_id(self, token_id: str, key_id: str) -> tuple[Token, Person | None] | None:
        row = _BY_ID.first(self._connection, token=token_id, key=key_id)
        return (_token(row), _owner(row)) if row else None

    def page(self, tenant_id: str | None, *, upn: str = "") -> list[Token]:
        query = select(tokens).where(tokens.c.tenant_id == tenant_id).order_by(tokens.c.upn, tokens.c.created, tokens.c.id)
        if upn:
            query = query.where(tokens.c.upn == upn)
        return [_token(row) for row in self._connection.execute(query)]

    def get(self, tenant_id: str | None, token_id: str) -> Token | None:
        row = self._connection.execute(select(tokens).where(tokens.c.tenant_id == tenant_id, tokens.c.id == token_id)).first()
        return _token(row) if row else None

    def used(self, token_id: str, day: int) -> None:
        self._connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used=day))

    def shorten(self, token_id: str, expires: int) -> None:
        self._connection.execute(update(tokens).where(tokens.c.id == token_id, tokens.c.expires > expires).values(expires=expires))

    def remove(self, token_id: str) -> bool:
        return bool(self._connection.execute(delete(tokens).where(tokens.c.id == token_id)).rowcount)

    def remove_claims(self, tenant_id: str, upn: str) -> int:
        return self._connection.execute(
            delete(tokens).where(tokens.c.tenant_id == tenant_id, tokens.c.upn == upn, tokens.c.kind == TokenKind.CLAIM.value)
        ).rowcount

    def remove_expired(self, before: int) -> int:
        return self._connection.execute(delete(tokens).where(tokens.c.expires < before)).rowcount

    # -- signing keys --------------------------------------------------------------------------------------------------------------

    def signing_keys(self) -> list[SigningKey]:
        rows = self._connection.execute(
            select(signing_keys).order_by(signing_keys.c.ends.is_not(None), signing_keys.c.created.desc(), signing_keys.c.id)
        )
        return [SigningKey(id=row.id, public_key=row.public_key, sealed=row.sealed, created=row.created, ends=row.ends) for row in rows]

    def insert_signing_key(self, key: SigningKey) -> None:
        self._connection.execute(
            insert(signing_keys).values(id=key.id, public_key=key.public_key, sealed=key.sealed, created=key.created, ends=key.ends)
        )

    def retire_signing_key(self, key_id: str, ends: int) -> None:
        self._connection.execute(update(signing_keys).where(signing_keys.c.id == key_id).values(ends=ends))

    def remove_signing_keys(self, key_ids: Sequence[str]) -> None:
        self._connection.execute(delete(signing_keys).where(signing_keys.c.id.in_(key_ids)))

    # -- providers of tenants ------------------------------------------------------------------------------------------------------

    def put_provider(self, provider: SignInProvider) -> None:
        with conflict("sign_in_provider_changed", "somebody else set the tenant's sign-in provider just now", "look at it, then try again"):
            self.remove_provider(provider.tenant_id)
            self._connection.execute(
                insert(sign_in_providers).values(
                    tenant_id=provider.tenant_id,
                    issuer=provider.issuer,
                    audience=provider.audience,
                    upn_claim=provider.upn_claim,
                    required_claim=provider.required_claim,
                    required_value=provider.required_value,
                    created=provider.created,
                )
            )

    def provider(self, tenant_id: str) -> SignInProvider | None:
        row = self._connection.execute(select(sign_in_providers).where(sign_in_providers.c.tenant_id == tenant_id)).first()
        return _provider(row) if row else None

    def providers(self, issuer: str, audiences: Sequence[str]) -> list[tuple[SignInProvider, str]]:
        rows = self._connection.execute(
            select(sign_in_providers, tenants.c.domain)
            .join_from(sign_in_providers, tenants, tenants.c.id == sign_in_providers.c.tenant_id)
            .where(sign_in_providers.c.issuer == issuer, sign_in_providers.c.audience.in_(audiences))
            .order_by(sign_in_providers.c.tenant_id)
        )
        return [(_provider(row), row.domain) for row in rows]

    def provided(self, tenant_id: str, upn: str) -> tuple[SignInProvider, Person | None] | None:
        row = _BY_PROVIDER.first(self._connection, tenant=tenant_id, upn=upn)
        return (_provider(row), _owner(row)) if row else None

    def remove_provider(self, tenant_id: str) -> bool:
        return bool(self._connection.execute(delete(sign_in_providers).where(sign_in_providers.c.tenant_id == tenant_id)).rowcount)
