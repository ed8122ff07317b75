"""A mail (docs/spec/hooks.md), by the standard library's SMTP client."""

from __future__ import annotations

import re
import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING

from keystead.adapters.notify.document import document_of, utc
from keystead.adapters.notify.limits import STEP_SECONDS, deadline, is_loopback, unfit
from keystead.adapters.notify.secrets import read_password
from keystead.ports.notify import NotDelivered

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.core.alerts import AlertKind
    from keystead.ports.notify import Message

WHOLE_SECONDS = 20.0
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
"""A plain address: nothing that could end a header or name a second recipient."""


class MailHook:
    """Implements `Hook`.

    Args:
        name: of the hook.
        kinds: that it wants; tenant: whose alerts it wants.
        server: host and port.
        sender, recipients: checked by `check_address`.
        tls: for STARTTLS, with the certificate checked.
        sign_in: user and file of the password; None for not at all.
    """

    def __init__(
        self,
        name: str,
        kinds: frozenset[AlertKind],
        tenant: str,
        server: tuple[str, int],
        sender: str,
        recipients: tuple[str, ...],
        tls: ssl.SSLContext,
        sign_in: tuple[str, Path] | None,
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.tenant = tenant
        self._server = server
        self._sender = sender
        self._recipients = recipients
        self._tls = tls
        self._sign_in = sign_in

    def __repr__(self) -> str:
        return f"MailHook({self.name!r})"

    def send(self, message: Message, now: int) -> str:  # noqa: ARG002 - a mail bears the time of its event
        sign_in = (self._sign_in[0], read_password(self._sign_in[1])) if self._sign_in else None
        clients: list[smtplib.SMTP] = []
        try:
            with deadline(WHOLE_SECONDS, lambda: clients[0].sock if clients else None):
                client = _Client(self._server, clients)
                refused = self._talk(client, mail_of(message, self._sender, self._recipients), sign_in)
        except smtplib.SMTPResponseException as error:
            raise NotDelivered(f"the mail server answered {error.smtp_code}") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDelivered("the mail server takes mail for none of the recipients") from error
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise NotDelivered(_reason(error)) from error
        finally:
            for opened in clients:
                opened.close()
        return "the mail server took it" + (f", but not for {', '.join(sorted(refused))}" if refused else "")

    def _talk(self, client: smtplib.SMTP, mail: EmailMessage, sign_in: tuple[str, str] | None) -> set[str]:
        """One conversation; returns the recipients that were refused."""
        client.ehlo_or_helo_if_needed()
        if client.has_extn("starttls"):
            client.starttls(context=self._tls)
            client.ehlo()
        elif not is_loopback(self._server[0]):
            raise NotDelivered("the mail server offers no STARTTLS, without which nothing is sent beyond this machine")
        if sign_in is not None:
            client.login(*sign_in)
        refused = client.send_message(mail, self._sender, list(self._recipients))
        return set(refused)


class _Client(smtplib.SMTP):
    """A client that can be found while it still connects: so the deadline ends that, too.

    It is given its server at once, because the certificate is checked against the name given here and not the one given to `connect`.
    """

    def __init__(self, server: tuple[str, int], opened: list[smtplib.SMTP]) -> None:
        opened.append(self)
        super().__init__(*server, local_hostname="keystead", timeout=STEP_SECONDS)


def mail_of(message: Message, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """A message as a mail. The policy refuses line ends in headers; what goes into them are words of ours and ids anyway."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = f"[Keystead] {message.severity}: {message.kind} {message.state}"
    mail["Date"] = format_datetime(utc(message.when))
    mail["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("".join(f"{name}: {value}\n" for name, value in document_of(message).items()), cte="7bit")
    return mail


def check_address(name: str, address: str) -> str:
    """A plain mail address.

    Raises:
        InvalidRequest: it is none.
    """
    if not _ADDRESS.fullmatch(address):
        raise unfit(name, f"{address!r} is no plain mail address")
    return address


def _reason(error: Exception) -> str:
    """Why it did not go, without anything the server may have said."""
    if isinstance(error, TimeoutError):
        return "the mail server did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the mail server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the mail server does not offer what is needed to sign in"
    if isinstance(error, smtplib.SMTPException | ValueError):
        return f"the mail server's answer is no SMTP or was cut off, or nothing could be sent ({type(error).__name__})"
    return f"the mail server cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"
