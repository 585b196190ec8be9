"""How a method registers itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call

Method = Callable[["Call"], Any]

METHODS: dict[str, Method] = {}
WITHOUT_ACCOUNT: set[str] = set()
ANYWHERE: set[str] = set()


class RpcError(Exception):
    """A method's error, as Telegram would answer it (core.telegram.org/api/errors)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


def method(name: str, *, without_account: bool = False, anywhere: bool = False) -> Callable[[Method], Method]:
    """Serve `name`; with `without_account` also to keys on which nobody is signed in.

    With `anywhere` it is served on another datacenter than the account's home, too.
    """

    def register(function: Method) -> Method:
        METHODS[name] = function
        if without_account:
            WITHOUT_ACCOUNT.add(name)
        if anywhere:
            ANYWHERE.add(name)
        return function

    return register
