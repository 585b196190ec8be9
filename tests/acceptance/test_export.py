"""A session is given back, and is good: somebody else goes on with it."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from supervisor.datacenter import Datacenter
from tests.acceptance.conftest import Site

pytestmark = pytest.mark.timeout(90)


async def test_a_session_is_given_back_while_no_daemon_runs(
    dc: Datacenter, new_site: Callable[..., Site]
) -> None:
    """As a string on stdout alone, and as a file of mode 0600; another daemon is online with it, without a sign-in."""
    site = new_site(dc)
    bot = site.bot("support-bot")
    site.write()
    assert (await site.command("accounts", "export", "support-bot", "--string")).code == 1
    async with site.online() as daemon:
        refused = await site.command("accounts", "export", "support-bot", "--string")
        assert (refused.code, refused.out) == (75, "")
        assert (await daemon.accounts())["support-bot"]["state"] == "online"
    for how in ([], ["--string", "--file", "x"]):
        assert (await site.command("accounts", "export", "support-bot", *how)).code == 2
    assert (await site.command("accounts", "export", "suport-bot", "--string")).code == 2
    path = site.folder / "support.session"
    string = await site.command("accounts", "export", "support-bot", "--string")
    file = await site.command("accounts", "export", "support-bot", "--file", str(path))
    assert (string.code, file.code, file.out) == (0, 0, ""), file.err
    assert len(string.out) == 363
    assert string.out.strip() not in string.err
    assert "used from two places" in string.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = await site.command("accounts", "export", "support-bot", "--file", str(path))
    assert (again.code, "nothing was overwritten" in again.err) == (1, True)

    for key, value in (("session_string", string.out.strip()), ("session_file", str(path))):
        other = new_site(dc)
        other.accounts["mine"] = {key: value}
        async with other.online() as daemon:
            assert (await daemon.accounts())["mine"]["user_id"] == bot.user_id
    assert dc.seen.sign_ins[bot.user_id] == 1
    assert dc.seen.max_connections_per_key == 1
