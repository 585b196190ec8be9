"""The public exceptions.

SupervisorError
├── ConfigError           the configuration or the installation (exit 78)
├── AlreadyRunning        another daemon holds state_dir (exit 75)
├── NotRunning            no daemon answers on the control socket (exit 69)
├── LoginRefused          a sign-in cannot go on (exit 2, 75, 77 or 78)
├── AccountUnavailable    a call could not be held any longer: state, failure, retry_at
├── OutcomeUnknown        a call may or may not have taken effect; repeating it is the caller's decision
├── TransferFailed        a file did not arrive whole (telegram.media)
├── DatacenterUnreachable another datacenter than the account's own could not be reached
├── StorageBroken, SessionUnreadable, SessionInUse      stored sessions (telegram.storage)
└── DeliveredUnseen       a message was delivered, but Telegram's copy of it could not be found
"""

from __future__ import annotations

from datetime import datetime


class SupervisorError(Exception):
    """The base of every exception that tg-supervisor raises itself."""


class ConfigError(SupervisorError):
    """Everything that is wrong with the configuration, all at once.

    Args:
        problems: one line each, as ``accounts.toml:12: accounts.support-bot.proxy: …``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class AlreadyRunning(SupervisorError):
    """Another daemon holds the state directory.

    Args:
        state_dir: the directory.
        pid: the other daemon's process, where it could be read.
    """

    def __init__(self, state_dir: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{state_dir} is in use by {holder}; stop it first (kill {pid or 'PID'})")
        self.pid = pid


class NotRunning(SupervisorError):
    """No daemon answers on the control socket."""


class LoginRefused(SupervisorError):
    """A user account's sign-in cannot go on.

    Args:
        code: a stable word, as ``banned``, ``flood``, ``budget``, ``configuration``, ``not_a_user``.
        message: what is wrong, and what to do.
        retryable: whether it may succeed later.
        wait: after how many seconds, where that is known.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable or wait is not None
        self.wait = wait


class AccountUnavailable(SupervisorError):
    """A call was not made, or its answer did not come in time: the account is not online, or its link would not take it.

    Args:
        account: the account's name.
        state: its state, as `status` shows it.
        failure: what last went wrong, or None.
        retry_at: when it will be tried again by itself, or None.
        why: what ended the wait, in words.
    """

    def __init__(
        self,
        account: str,
        state: str,
        failure: str | None = None,
        retry_at: datetime | None = None,
        why: str = "",
    ) -> None:
        parts = [f"{account} is {state}"]
        if why:
            parts.append(why)
        if failure:
            parts.append(f"last failure: {failure}")
        if retry_at is not None:
            parts.append(f"next try at {retry_at.isoformat(timespec='seconds')}")
        super().__init__("; ".join(parts))
        self.account = account
        self.state = state
        self.failure = failure
        self.retry_at = retry_at


class OutcomeUnknown(SupervisorError):
    """The call was sent, nobody knows whether it took effect, and repeating it might do it twice.

    Its answer was lost with the MTProto session, or the answer is that Telegram itself gave up waiting for it.

    Args:
        account: the account's name.
        method: the method, as ``messages.CreateChat``.
        why: why nobody knows.
    """

    def __init__(
        self, account: str, method: str, why: str = "its session was lost before the answer came"
    ) -> None:
        super().__init__(
            f"{account}: {method} was sent, but {why}; check whether it took effect before calling it again"
        )
        self.account = account
        self.method = method


class DatacenterUnreachable(SupervisorError, ConnectionError):
    """Another datacenter than the account's own could not be reached; the account itself is not concerned.

    Args:
        account: the account's name.
        dc_id: the datacenter.
        why: what went wrong last.
    """

    def __init__(self, account: str, dc_id: int, why: str) -> None:
        super().__init__(f"{account}: datacenter {dc_id} could not be reached: {why}")
        self.account = account
        self.dc_id = dc_id


class DeliveredUnseen(SupervisorError):
    """The message was delivered once, but Telegram's copy of it could not be found.

    Args:
        account: the account's name.
        method: the method, as ``messages.SendMessage``.
    """

    def __init__(self, account: str, method: str) -> None:
        super().__init__(
            f"{account}: {method} was delivered; its message could not be fetched. Do not send it again"
        )
        self.account = account
        self.method = method
