"""A real mail server on loopback (aiosmtpd), in a thread: keeps what it is sent, with STARTTLS and sign-in where the test wants them."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from email.message import EmailMessage


@dataclass(frozen=True)
class Mail:
    """One mail as it came."""

    sender: str
    recipients: list[str]
    data: bytes
    encrypted: bool
    user: str

    @property
    def message(self) -> EmailMessage:
        found = email.message_from_bytes(self.data, policy=email.policy.default)
        assert isinstance(found, email.message.EmailMessage)
        return found


@dataclass
class MailServer:
    """What came, and what is refused."""

    port: int
    mails: list[Mail] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    data_answer: str = "250 taken"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refused:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.data_answer.startswith("2"):
            user = session.auth_data.login.decode() if session.auth_data else ""
            self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos, envelope.content, session.ssl is not None, user))
        return self.data_answer


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None) -> Iterator[MailServer]:
    """A mail server on a free port of loopback.

    Args:
        tls: offer STARTTLS with this certificate.
        login: take mail only from whoever signs in so.
    """
    loop = asyncio.new_event_loop()
    made = MailServer(0)

    def check(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        good = isinstance(given, LoginPassword) and login is not None and (given.login.decode(), given.password.decode()) == login
        return AuthResult(success=good, handled=good, auth_data=given)

    def protocol() -> SMTP:
        return SMTP(
            made,
            hostname="mail.test",
            tls_context=tls,
            loop=loop,
            authenticator=check,
            auth_required=login is not None,
            auth_require_tls=tls is not None,
        )

    async def begin() -> asyncio.Server:
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        return server

    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield made
    finally:

        async def end() -> None:
            server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
