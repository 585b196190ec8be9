"""What the configuration says, in the words of `telegram`: the server, the proxies, and what a link is told of its account."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.config.model import Account, Config

if TYPE_CHECKING:
    from supervisor.telegram.dial import ProxyAddress
    from supervisor.telegram.spec import LinkSpec, ServerAddress


def server(config: Config) -> ServerAddress | None:
    """The server, where it is another than Telegram's own."""
    from supervisor.telegram.keyexchange import public_key_from_pem
    from supervisor.telegram.spec import ServerAddress

    own = config.telegram.server
    if own is None:
        return None
    return ServerAddress(own.host, own.port, own.dc_id, public_key_from_pem(own.public_key))


def proxies(config: Config) -> dict[str, ProxyAddress]:
    """The proxies by name."""
    from supervisor.telegram.dial import ProxyAddress

    return {
        p.name: ProxyAddress(
            p.scheme, p.host, p.port, p.username, p.password.reveal() if p.password else None
        )
        for p in config.proxies.values()
    }


def link(
    config: Config, account: Account, server: ServerAddress | None, proxies: Mapping[str, ProxyAddress]
) -> LinkSpec:
    """What a link is told.

    Args:
        config: the whole configuration.
        account: the account.
        server: as `server` gave it.
        proxies: as `proxies` gave them; links look them up there at each connection.
    """
    from supervisor.telegram.session import Timings
    from supervisor.telegram.spec import LinkSpec

    settings, telegram = config.settings, config.telegram
    return LinkSpec(
        name=account.name,
        identity=account.identity,
        api_id=telegram.api_id,
        api_hash=telegram.api_hash.reveal(),
        bot_token=account.bot_token.reveal() if account.bot_token else None,
        session_file=account.session_file,
        session_string=account.session_string.reveal() if account.session_string else None,
        server=server,
        timings=Timings(settings.connect_timeout, settings.answer_timeout, settings.silence_timeout),
        message_cache=settings.message_cache,
        skip_missed=settings.missed_updates == "skip",
        plugins=account.plugins,
        bases=(*config.search_path, Path.cwd()),
        options=account.client,
        proxies=proxies,
    )
