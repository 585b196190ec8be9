"""Asking the running daemon, from a command: plain http.client over the Unix socket, no event loop."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.control.address import short
from supervisor.control.protocol import SOCKET, ControlError
from supervisor.errors import NotRunning


class ControlClient:
    """Talks to the daemon of one state directory; a connection for each request.

    Args:
        state_dir: where its control.sock is.
        timeout: seconds for each of connecting, sending and the answer.
    """

    def __init__(self, state_dir: Path, timeout: float = 5.0) -> None:
        self._path = state_dir / SOCKET
        self._timeout = timeout

    def status(self) -> dict[str, Any]:
        """The answer to ``GET /v1/status``: what `status --json` prints.

        Raises:
            NotRunning: nobody answers.
            ControlError: the daemon did not answer in time, or could not tell.
        """
        return self.request("GET", "status")

    def request(self, method: str, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make one request.

        Args:
            method: ``GET`` to ask, ``POST`` to command.
            name: what follows ``/v1/``.
            body: sent as JSON.

        Raises:
            NotRunning: there is no socket, or nobody behind it.
            ControlError: the daemon refused; `code` and `retryable` say why. It did not answer in time: ``timeout``.
        """
        connection = _Connection(self._path, self._timeout)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{name}", payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return _answer(response.status, response.read())
        except TimeoutError as error:
            text = f"the daemon did not answer within {self._timeout:g} s"
            raise ControlError("timeout", text, retryable=True) from error
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(f"no daemon is running here: nobody answers at {self._path}") from error
        except (ConnectionError, http.client.HTTPException) as error:
            raise NotRunning(f"the daemon went away while it was asked ({error!r})") from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        with short(self._path) as name:
            self.sock.connect(name)


def _answer(status: int, payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
        if status < 400:
            return dict(body)
        error = body["error"]
        raise ControlError(
            error["name"],
            error["message"],
            retryable=error["retryable"],
            context=error["context"],
            status=status,
        )
    except (ValueError, KeyError, TypeError) as garbled:
        text = f"the daemon's answer was not understood (HTTP {status}); is it of another version?"
        raise ControlError("bad_answer", text, status=status) from garbled
