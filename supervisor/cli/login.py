"""`login`: sign a user account in. The one command that asks questions; the daemon never does.

Where a daemon runs, it takes the steps, for the session is its own: the code goes there over the control socket, and
the account comes online at once. Otherwise they are taken here, with the state directory locked meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor import installation
from supervisor.cli.common import ExitCode, Options, ask, options, say
from supervisor.cli.words import span
from supervisor.config.load import load
from supervisor.control.client import ControlClient
from supervisor.control.protocol import ControlError
from supervisor.errors import ConfigError, LoginRefused, NotRunning
from supervisor.record.lock import holder

if TYPE_CHECKING:
    from supervisor.config.model import Config

# How long one step may take; the daemon itself gives one up after 90 s. Seconds.
_PATIENCE = 100.0
_CONNECTING = 15.0

Steps = Callable[[str, str], Mapping[str, Any]]  # a step's name and its text -> what comes next

_EXITS = {
    "not_a_user": ExitCode.USAGE,
    "unknown_account": ExitCode.USAGE,
    "configuration": ExitCode.CONFIG,
}
_NOTES = {
    "pending": "a sign-in of this account is under way already: the code that was sent is still good",
    "wrong_code": "that is not the code",
    "code_expired": "this code has expired",
    "wrong_password": "that is not the password",
    "wrong_stored_password": "the password in the configuration is wrong; it is not tried again",
    "no_other_way": "Telegram offers no other way for this code",
    "too_early": "not yet: Telegram sends it another way in {wait} at the earliest",
    "flood": "Telegram wants a wait of {wait} before this is tried again",
    "try_again": "Telegram was not reached, or could not do it just now",
}


@click.command()
@click.argument("name")
@options
@click.pass_obj
def login(given: Options, name: str) -> int:
    """Sign the user account NAME in, with the code that Telegram sends it, and its two-factor password if it has one.

    An empty answer cancels. Nothing is asked where the account is signed in already.
    """
    return signed_in(given, name)


def signed_in(given: Options, name: str) -> int:
    """Sign a user account in, with a person at the terminal; give the exit code."""
    state_dir = given.state_dir()
    try:
        with _steps(state_dir, given, name) as step:
            return _sign_in(name, step)
    except (LoginRefused, ControlError) as refused:
        return _refused(refused)


@contextmanager
def _steps(state_dir: Path, given: Options, name: str) -> Iterator[Steps]:
    """The running daemon's steps, or our own."""
    pid = holder(state_dir)
    if pid is None:
        with _own_steps(given, name) as step:
            yield step
        return
    client = ControlClient(state_dir, timeout=_PATIENCE)

    def ask(step: str, text: str) -> Mapping[str, Any]:
        return client.request("POST", "login", {"account": name, "step": step, "text": text})

    try:
        yield ask
    except NotRunning as error:
        text = f"{state_dir} is in use by process {pid or '?'}, which does not answer: a daemon that starts or stops, or another login; try again"
        raise ControlError("not_ready", text, retryable=True) from error


@contextmanager
def _own_steps(given: Options, name: str) -> Iterator[Steps]:
    problems = installation.problems()
    if problems:
        raise ConfigError(problems)
    config = load(given.config_path)
    from supervisor import seats

    seats.user(name, config.accounts)  # before anything is locked, opened or imported
    logging.basicConfig(level=logging.DEBUG if given.debug else logging.ERROR, format="%(message)s")
    with _Loop(config, name) as loop:
        yield loop.step


class _Loop:
    """An event loop in a thread of its own, so that the connection lives while the person looks for the code."""

    def __init__(self, config: Config, name: str) -> None:
        self._config = config
        self._name = name
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="login", daemon=True)

    def __enter__(self) -> _Loop:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_CONNECTING)
        if self._error is not None:  # what could not be written, for one
            raise self._error

    def step(self, step: str, text: str) -> Mapping[str, Any]:
        """Take one step in the loop."""
        import asyncio

        asked = asyncio.run_coroutine_threadsafe(self._logins.step(self._name, step, text), self._loop)
        return asked.result(_PATIENCE)

    def _run(self) -> None:
        import asyncio

        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised where the person is
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        import asyncio

        from supervisor.daemon import logins_alone

        async with logins_alone(self._config) as self._logins:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._stop.wait()


# --- the conversation -----------------------------------------------------------------------------


def _sign_in(name: str, step: Steps) -> int:
    answer = step("begin", "")
    try:
        while answer["next"] not in ("done", "cancelled"):
            _tell(answer)
            answer = _NEXT[answer["next"]](answer, step)
    except KeyboardInterrupt:
        with suppress(Exception):  # it is over either way, and the daemon forgets it by itself
            step("cancel", "")
        raise
    if answer["next"] == "cancelled":
        say(f"{name} was not signed in")
        return ExitCode.LOGIN_NEEDED
    say(
        f"{name} {'is signed in already' if answer['already'] else 'is signed in'}, as user {answer['user_id']}"
    )
    return ExitCode.OK


def _tell(answer: Mapping[str, Any]) -> None:
    note = answer.get("note")
    if note is not None:
        wait = answer.get("wait_s")
        say(_NOTES.get(note, note).format(wait="" if wait is None else span(max(1.0, wait))))
    if answer["next"] == "code" and note in (None, "pending"):
        length = f" of {answer['length']} characters" if answer["length"] else ""
        say(f"the code{length} was sent to {answer['sent_to']}")


def _ask_code(answer: Mapping[str, Any], step: Steps) -> Mapping[str, Any]:
    other = f"r: send it another way, {answer['resend']}; " if answer["resend"] else ""
    text = ask(f"Code ({other}empty: cancel): ")
    if text.lower() == "r":
        return step("resend", "")
    return step("code", text) if text else step("cancel", "")


def _ask_new_code(_answer: Mapping[str, Any], step: Steps) -> Mapping[str, Any]:
    wanted = ask("Have a new one sent? [y/N]: ").lower() in ("y", "yes")
    return step("new_code" if wanted else "cancel", "")


def _ask_password(_answer: Mapping[str, Any], step: Steps) -> Mapping[str, Any]:
    text = ask("Two-factor password (empty: cancel): ", hidden=True)
    return step("password", text) if text else step("cancel", "")


_NEXT = {"code": _ask_code, "new_code": _ask_new_code, "password": _ask_password}


def _refused(refused: LoginRefused | ControlError) -> int:
    wait = refused.wait if isinstance(refused, LoginRefused) else refused.context.get("wait_s")
    say(f"{refused}; again in {span(wait)}" if wait else str(refused))
    known = _EXITS.get(refused.code)
    if known is not None:
        return known
    return ExitCode.TRY_LATER if refused.retryable else ExitCode.LOGIN_NEEDED
