"""Which distributions stand behind the import names `supervisor` and `pyrogram`.

pip lets two distributions install the same files, the later one on top of the earlier: supervisord and
tg-supervisor are both called `supervisor` when imported, Pyrogram and its forks `pyrogram`. What is left is a mixture
that fails somewhere, later. So it is found at start, with the repair, and without importing any of them.

The folders of sys.path are read directly: importlib.metadata takes longer to be imported than this takes to run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

TESTED = {"pyrogram": "2.0.106", "kurigram": "2.2.26"}
"""The client libraries and the one version of each that the tests run against; each is an extra of ours, too."""

_OURS = "tg-supervisor"
_CLIENT = "pyrogram"  # the import name that Pyrogram and its forks share
_KNOWN_BY_NAME = {"supervisor": {"supervisor"}, _CLIENT: {"pyrogram", "kurigram", "pyrofork"}}


class _Distribution(NamedTuple):
    name: str  # normalised: lower case, hyphens
    version: str
    folder: str  # of sys.path, where its files are
    metadata: Path

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def problems(path: Sequence[str] | None = None) -> list[str]:
    """What keeps this environment from working, each with its repair; empty where all is well.

    Args:
        path: the folders to look into; sys.path by default.
    """
    installed = list(_installed(sys.path if path is None else path))
    clients = _clients(installed)
    return [*_supervisord(installed, clients), *_client_problems(clients)]


def warnings(path: Sequence[str] | None = None) -> list[str]:
    """What may go wrong, but need not: a client library in a version that nobody tested.

    Args:
        path: the folders to look into; sys.path by default.
    """
    clients = _clients(list(_installed(sys.path if path is None else path)))
    return [_untested(client) for client in clients[:1] if TESTED.get(client.name) != client.version]


def client_library(path: Sequence[str] | None = None) -> tuple[str, str]:
    """The distribution that `import pyrogram` would load: its name ("pyrogram", "kurigram" …) and version.

    Args:
        path: the folders to look into; sys.path by default.

    Raises:
        LookupError: there is none; the text is that of `problems`.
    """
    clients = _clients(list(_installed(sys.path if path is None else path)))
    if not clients:
        raise LookupError(_no_client())
    return clients[0].name, clients[0].version


def _installed(path: Sequence[str]) -> Iterator[_Distribution]:
    """Every distribution on the path, in the order in which an import would meet them."""
    for folder in dict.fromkeys(path):
        try:
            entries = sorted(Path(folder).iterdir())
        except OSError:  # a zip, or a folder that is not there
            continue
        for entry in entries:
            # A leading ~ is what pip leaves behind when an uninstallation was cut short.
            if entry.suffix in {".dist-info", ".egg-info"} and not entry.name.startswith("~"):
                name, _, rest = entry.stem.partition("-")
                yield _Distribution(
                    name=name.replace("_", "-").replace(".", "-").lower(),
                    version=rest.partition("-")[0],
                    folder=folder,
                    metadata=entry,
                )


def _provides(distribution: _Distribution, package: str) -> bool:
    """Whether the distribution installs the import name; an editable one tells it by its top_level.txt or its name."""
    if distribution.name in _KNOWN_BY_NAME[package]:
        return True
    if package in _text(distribution.metadata / "top_level.txt").split():
        return True
    return f"\n{package}/__init__.py," in "\n" + _text(distribution.metadata / "RECORD")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _clients(installed: list[_Distribution]) -> list[_Distribution]:
    """What installs `pyrogram` in the folder that an import takes it from; the folders behind are only shadowed."""
    providers = [distribution for distribution in installed if _provides(distribution, _CLIENT)]
    return [provider for provider in providers if provider.folder == providers[0].folder]


def _supervisord(installed: list[_Distribution], clients: list[_Distribution]) -> list[str]:
    ours = {distribution.folder for distribution in installed if distribution.name == _OURS}
    extra = clients[0].name if clients and clients[0].name in TESTED else _CLIENT
    return [
        (
            f"{other} and {_OURS} install the same import name, `supervisor`, and have overwritten each other's "
            f'files. Repair: `pip uninstall -y {other.name} {_OURS}`, then `pip install "{_OURS}[{extra}]"`; '
            f"{other.name} needs an environment of its own."
        )
        for other in installed
        if other.folder in ours and other.name != _OURS and _provides(other, "supervisor")
    ]


def _client_problems(clients: list[_Distribution]) -> list[str]:
    if not clients:
        return [_no_client()]
    if len(clients) == 1:
        return []
    both = " and ".join(map(str, clients))
    names = " ".join(client.name for client in clients)
    return [
        (
            f"{both} install the same import name, `{_CLIENT}`, and have overwritten each other's files. "
            f"Repair: `pip uninstall -y {names}`, then {_choice()}."
        )
    ]


def _no_client() -> str:
    return f"No Telegram client library is installed. Repair: {_choice()}."


def _choice() -> str:
    return " or ".join(
        f'`pip install "{_OURS}[{name}]"` ({name} {version})' for name, version in TESTED.items()
    )


def _untested(client: _Distribution) -> str:
    tested = " and ".join(f"{name} {version}" for name, version in TESTED.items())
    return f"{client} is installed; {_OURS} is tested with {tested} only. Repair: {_choice()}."
