"""Signing a user account in: each step is one call, and none is ever a prompt.

All steps are taken with one auth key in one MTProto session; a connection that is lost is dialled again with both
(CLIENTS 4.12). The key is kept out of the storage until Telegram has said who is signed in with it: whatever becomes
of a sign-in, the session of before stays as it was, and is kept aside only when there is a new one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from supervisor.core.decide import KEY_LOST_AFTER, KEY_NOT_FOUND
from supervisor.core.failure import Evidence, Source
from supervisor.deadlines import deadline
from supervisor.ports import LinkFailed, RpcFailed, SessionGone
from supervisor.telegram import evidence as evidences
from supervisor.telegram.keyexchange import AuthKey, create_auth_key, telegram_public_keys
from supervisor.telegram.queries import method_name
from supervisor.telegram.session import Credentials, MtprotoSession
from supervisor.telegram.storage import StorageBroken
from supervisor.telegram.wire import Wire

if TYPE_CHECKING:
    from supervisor.telegram.dial import Route
    from supervisor.telegram.spec import LinkSpec

STEP = "sign-in"
SEND_CODE = "auth.SendCode"
# How many answers' time one step may take, over as many connections as that needs.
PATIENCE = 4
# Between two attempts to dial a lost connection again. Seconds.
REDIAL_AFTER = 1.0
# Telegram sends a number or a bot on to its home datacenter with 303; more moves than this are a loop.
MOVES = 3

# What a key answers on which nobody is signed in.
NOBODY = "AUTH_KEY_UNREGISTERED"

SIGN_UP_REQUIRED = "SIGN_UP_REQUIRED"
SET_UP_EMAIL_REQUIRED = "SET_UP_EMAIL_REQUIRED"
PAYMENT_REQUIRED = "SENT_CODE_PAYMENT_REQUIRED"

_MIGRATE = re.compile(r"(?:PHONE|NETWORK|USER)_MIGRATE_(\d+)")
# After a failure of these another connection may do: Telegram itself has said nothing against the sign-in.
_PASSING = frozenset({Source.SOCKET, Source.SILENCE, Source.PROTOCOL, Source.PROXY})
# The code was right. Until the password is proved, the key answers nearly everything with this.
PASSWORD_NEEDED = "SESSION_PASSWORD_NEEDED"  # noqa: S105 - an error's name
# A password's proof is for one question of the server's; these say that it has another one by now.
_ASK_ANEW = frozenset({"SRP_ID_INVALID", "SRP_PASSWORD_CHANGED", "AUTH_KEY_UNSYNCHRONIZED", PASSWORD_NEEDED})


@dataclass(frozen=True, slots=True)
class CodeSent:
    """Where Telegram has sent a code.

    `way` is ``app``, ``sms``, ``call``, ``flash_call``, ``missed_call``, ``email``, ``fragment_sms``,
    ``firebase_sms``, ``sms_word`` or ``sms_phrase``; `next_way` the way of a resend, after `timeout` seconds.
    `detail` is what Telegram tells besides: an address with most of it hidden, the beginning of a phrase.
    """

    way: str
    length: int | None = None
    detail: str | None = None
    next_way: str | None = None
    timeout: int | None = None
    hash: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in."""

    user_id: int


@dataclass(frozen=True, slots=True)
class PasswordNeeded:
    """The code was right; the two-factor password is asked for."""


class Login:
    """One sign-in. `connect` comes first, then the steps, one at a time; `close` at any time.

    Every method that asks Telegram raises `LinkFailed`, with the evidence: Telegram refused, or was not reached.
    """

    def __init__(
        self, spec: LinkSpec, phone: str, storage: Any, init_connection: Callable[[Any, int, Any], Any]
    ) -> None:
        """Prepare a sign-in; nothing is opened.

        Args:
            spec: the account.
            phone: its number.
            storage: its open storage, which takes the new session.
            init_connection: wraps a query into invokeWithLayer and initConnection.
        """
        self._spec = spec
        self._phone = phone.strip(" +")
        self._storage = storage
        self._init_connection = init_connection
        self._session = self._new_session()
        self._route: Route | None = None
        self._key: AuthKey | None = None
        self._options: Any = ()
        self._moved: tuple[int, str, int] | None = None  # datacenter, address, port
        self._lost = asyncio.Event()
        self._lost.set()
        self._loss: Evidence | None = None  # why there is no connection
        self._unsure = False  # whether a sign-in was granted of which no answer came
        self._code: CodeSent | None = None

    # --- ports.LinkEvents -----------------------------------------------------------------------------

    def link_lost(self, evidence: Evidence) -> None:
        """The connection is gone."""
        self._loss = evidence
        self._lost.set()

    def link_overdue(self) -> None:
        """Nothing else would be sent meanwhile."""

    def link_answers(self, outstanding: int) -> None:
        """Nothing was held back."""

    # --- the connection -------------------------------------------------------------------------------

    async def connect(self, route: Route) -> None:
        """Open the first connection, and make the key that all steps use.

        Args:
            route: the way to a datacenter; Telegram may send the sign-in on to another one.
        """
        self._route = route
        await self._link_up()

    def close(self) -> None:
        """Close the connection. What was not finished is given up."""
        self._session.close()
        self._session.give_up()
        self._lost.set()

    async def _link_up(self) -> None:
        """One attempt to have a connection with this sign-in's key and session."""
        session, route, spec = self._session, self._route, self._spec
        assert route is not None, "connect() comes first"
        session.close()
        wire = await Wire.dial(
            route,
            timeout=spec.timings.connect_timeout,
            on_packet=session.packet_received,
            on_lost=session.wire_lost,
        )
        try:
            if self._key is None:
                keys = [spec.server.public_key] if spec.server is not None else telegram_public_keys()
                self._key = await create_auth_key(
                    wire, public_keys=keys, timeout=spec.timings.connect_timeout
                )
            self._lost.clear()
            credentials = Credentials(
                self._key.key, spec.api_id, authorized=False, salt=self._key.server_salt
            )
            greeting = await session.open(wire, route, credentials)
        except BaseException:
            self._lost.set()
            wire.abort()
            raise
        self._options = greeting.config.dc_options

    def _new_session(self) -> MtprotoSession:
        return MtprotoSession(self, lambda _update: None, self._init_connection, self._spec.timings)

    def _move(self, dc_id: int) -> None:
        """Go to the number's own datacenter, where another key is needed: nothing was begun in this one.

        The next query dials.
        """
        assert self._route is not None
        address, port = address_of(dc_id, self._options, self._route.path)
        self.close()
        self._session, self._key = self._new_session(), None
        self._moved = dc_id, address, port
        self._route = replace(self._route, host=address, port=port)

    # --- asking ---------------------------------------------------------------------------------------

    async def _ask(self, query: Any) -> Any:
        """One query, over as many connections as it takes; bounded."""
        method, path = method_name(query), self._route.path if self._route is not None else "direct"
        seconds = PATIENCE * self._spec.timings.answer_timeout
        try:
            async with deadline(seconds):
                return await self._through(query)
        except RpcFailed as error:
            seen = evidences.from_rpc(error.code, error.text, method=method, path=path, step=STEP)
            raise LinkFailed(seen) from error
        except SessionGone as error:
            message = f"the session was reset before {method} was answered"
            raise LinkFailed(
                Evidence(Source.PROTOCOL, message, method=method, step=STEP, path=path)
            ) from error
        except TimeoutError as error:
            if self._lost.is_set() and self._loss is not None:  # it was not the answer that was missing
                raise LinkFailed(replace(self._loss, step=STEP)) from error
            message = f"no answer to {method} in {seconds:g} s"
            raise LinkFailed(
                Evidence(Source.SILENCE, message, method=method, step=STEP, path=path)
            ) from error

    async def _through(self, query: Any) -> Any:
        """Send a query, and dial again whenever the connection is lost: it goes out anew under the same msg_id."""
        if self._lost.is_set():
            await self._relink()
        sending = asyncio.create_task(self._session.send(query), name=f"sign-in:{self._spec.name}")
        lost: asyncio.Task[Any] | None = None
        try:
            while not sending.done():
                lost = asyncio.create_task(self._lost.wait(), name=f"sign-in-link:{self._spec.name}")
                await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    await self._relink()
            return sending.result()
        finally:
            _end(sending, lost)

    async def _relink(self) -> None:
        """Dial until there is a connection; who waits bounds it."""
        unknown = 0
        while True:
            try:
                await self._link_up()
            except LinkFailed as failed:
                self._loss = found = failed.evidence
                unknown += found.source is Source.TRANSPORT and found.code == KEY_NOT_FOUND
                passing = found.source in _PASSING and found.error_id is None
                if not passing and not 0 < unknown < KEY_LOST_AFTER:
                    raise  # Telegram was reached, and does not want this key
                await asyncio.sleep(REDIAL_AFTER)
            else:
                return

    # --- the steps ------------------------------------------------------------------------------------

    async def send_code(self) -> CodeSent | SignedIn:
        """Have Telegram send a code; SignedIn where it wants none."""
        from pyrogram import raw

        spec = self._spec
        query = raw.functions.auth.SendCode(
            phone_number=self._phone,
            api_id=spec.api_id,
            api_hash=spec.api_hash,
            settings=raw.types.CodeSettings(),
        )
        for _ in range(MOVES):
            try:
                return await self._code_sent(await self._ask(query))
            except LinkFailed as failed:
                moved = sent_on(failed.evidence.error_id)
                if moved is None:
                    raise
                self._move(moved)
        raise LinkFailed(Evidence(Source.RPC, "sent from datacenter to datacenter", step=STEP))

    async def resend(self) -> CodeSent | SignedIn:
        """Have the code sent in the next way."""
        from pyrogram import raw

        query = raw.functions.auth.ResendCode(phone_number=self._phone, phone_code_hash=self._hash)
        return await self._code_sent(await self._ask(query))

    async def sign_in(self, code: str) -> SignedIn | PasswordNeeded:
        """Sign in with the code that the person was sent."""
        from pyrogram import raw

        proof: dict[str, Any] = {"phone_code": code}
        if self._code is not None and self._code.way == "email":
            proof = {"email_verification": raw.types.EmailVerificationCode(code=code)}
        query = raw.functions.auth.SignIn(phone_number=self._phone, phone_code_hash=self._hash, **proof)
        try:
            return await self._granted(query)
        except LinkFailed as failed:
            if failed.evidence.error_id == PASSWORD_NEEDED:
                return PasswordNeeded()
            raise

    async def check_password(self, password: str) -> SignedIn:
        """Sign in with the two-factor password, after the code."""
        try:
            return await self._check_password(password)
        except LinkFailed as failed:
            if failed.evidence.error_id not in _ASK_ANEW:
                raise
        return await self._check_password(password)

    async def _check_password(self, password: str) -> SignedIn:
        from pyrogram import raw, utils

        question = await self._ask(raw.functions.account.GetPassword())
        # In a thread: 100,000 rounds of PBKDF2.
        proof = await asyncio.to_thread(utils.compute_password_check, question, password)
        return await self._granted(raw.functions.auth.CheckPassword(password=proof))

    async def _granted(self, query: Any) -> SignedIn:
        """Ask to be signed in; where no answer came to that, ask who is signed in before it is asked again."""
        if self._unsure and (signed_in := await self._whoever()) is not None:
            return signed_in
        self._unsure = True
        try:
            answer = await self._ask(query)
        except LinkFailed as failed:
            self._unsure = failed.evidence.source is not Source.RPC
            if failed.evidence.source is Source.PROTOCOL and (signed_in := await self._whoever()) is not None:
                return signed_in  # the session was reset, answers and all
            raise
        self._unsure = False
        return await self._authorized(answer)

    async def _whoever(self) -> SignedIn | None:
        """Who is signed in with this key; raises PASSWORD_NEEDED where the code was right."""
        from pyrogram import raw

        try:
            (user,) = await self._ask(raw.functions.users.GetUsers(id=[raw.types.InputUserSelf()]))
        except LinkFailed as failed:
            self._unsure = failed.evidence.source is not Source.RPC
            if failed.evidence.error_id != NOBODY:
                raise
            return None
        await self._keep(user.id)
        return SignedIn(user.id)

    async def cancel(self) -> None:
        """Tell Telegram that the code will not be used, if there is one and Telegram can be told."""
        from pyrogram import raw

        if self._code is not None and not self._lost.is_set():
            query = raw.functions.auth.CancelCode(phone_number=self._phone, phone_code_hash=self._hash)
            with suppress(LinkFailed, TimeoutError):
                async with asyncio.timeout(self._spec.timings.connect_timeout):
                    await self._ask(query)
        self.close()

    # --- answers --------------------------------------------------------------------------------------

    @property
    def _hash(self) -> str:
        assert self._code is not None, "send_code() comes first"
        return self._code.hash

    async def _code_sent(self, sent: Any) -> CodeSent | SignedIn:
        """Read an auth.SentCode; the other answers end a sign-in or need what only Telegram's own apps have."""
        kind = type(sent).__name__
        if kind == "SentCodeSuccess":
            return await self._authorized(sent.authorization)
        if kind != "SentCode":
            raise self._refused(PAYMENT_REQUIRED, f"Telegram answers {kind}: only its own apps can go on")
        way = _snake(type(sent.type).__name__.removeprefix("SentCodeType"))
        if way == "set_up_email_required":
            message = "Telegram wants a sign-in e-mail address to be set up first"
            raise self._refused(SET_UP_EMAIL_REQUIRED, message)
        following = sent.next_type
        self._code = CodeSent(
            way=way.removesuffix("_code"),
            length=getattr(sent.type, "length", None),
            detail=_detail(sent.type),
            next_way=None if following is None else _snake(type(following).__name__.removeprefix("CodeType")),
            timeout=sent.timeout,
            hash=sent.phone_code_hash,
        )
        return self._code

    async def _authorized(self, authorization: Any) -> SignedIn:
        if type(authorization).__name__ != "Authorization":
            raise self._refused(SIGN_UP_REQUIRED, "no Telegram account has this number")
        await self._keep(authorization.user.id)
        return SignedIn(authorization.user.id)

    async def _keep(self, user_id: int) -> None:
        """Store the new session, and the one of before aside, in one transaction: nothing here gives up its turn."""
        assert self._key is not None
        assert self._route is not None
        storage, server = self._storage, self._spec.server
        if self._moved is not None:
            dc_id, address, port = self._moved
            await storage.dc_id(dc_id)
            await storage.server_address(address)
            await storage.port(port)
        elif server is not None and self._route.host == server.host and self._route.port == server.port:
            await storage.dc_id(server.dc_id)
        await storage.auth_key(self._key.key)
        await storage.api_id(self._spec.api_id)
        await storage.user_id(user_id)
        await storage.is_bot(False)
        with suppress(
            StorageBroken
        ):  # Telegram has granted it: it is kept in memory, said in the log, and tried again
            await storage.persist()

    def _refused(self, error_id: str, message: str) -> LinkFailed:
        path = self._route.path if self._route is not None else "direct"
        return LinkFailed(Evidence(Source.RPC, message, error_id, step=STEP, path=path))


def sent_on(error_id: str | None) -> int | None:
    """The datacenter to which an error such as PHONE_MIGRATE_4 sends a sign-in; None for any other."""
    found = _MIGRATE.fullmatch(error_id or "")
    return None if found is None else int(found[1])


def address_of(dc_id: int, options: Any, path: str) -> tuple[str, int]:
    """Where a datacenter is.

    Args:
        dc_id: its number.
        options: the `dc_options` of a help.Config.
        path: the path on which that was asked, for the message.

    Raises:
        LinkFailed: it is not told.
    """
    for option in options:
        if option.id == dc_id and not (option.ipv6 or option.media_only or option.cdn):
            return option.ip_address, option.port
    message = f"Telegram sends this sign-in to datacenter {dc_id}, whose address it does not tell"
    raise LinkFailed(Evidence(Source.RPC, message, step=STEP, path=path))


def _end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel what still runs; what ended with an error has been told through the wait, or nobody wants it."""
    for task in tasks:
        if task is not None:
            task.cancel()
            if task.done() and not task.cancelled():
                task.exception()


def _snake(name: str) -> str:
    """``missed_call`` for MissedCall."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _detail(kind: Any) -> str | None:
    for name in ("email_pattern", "beginning", "prefix", "url"):
        if (value := getattr(kind, name, None)) is not None:
            return str(value)
    return None
