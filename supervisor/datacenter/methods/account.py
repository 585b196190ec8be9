"""help.* and bots.*: what an account asks about the server and says about itself."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from supervisor.datacenter.library import Written, build, raw
from supervisor.datacenter.methods.registry import method

if TYPE_CHECKING:
    from supervisor.datacenter.dispatch import Call

_HOUR = 3600


@method("help.GetConfig", without_account=True)
def get_config(call: Call) -> Any:
    """All datacenters of the cluster, where they listen."""
    engine = call.engine
    return _config(int(engine.now()), engine.settings.dc_id, tuple(engine.shared.addresses.items()))


@lru_cache(maxsize=8)
def _config(now: int, this_dc: int, addresses: tuple[tuple[int, tuple[str, int]], ...]) -> Written:
    """Written once a second for all who ask: every new link does."""
    options = [
        build(raw.types.DcOption, id=dc_id, ip_address=host, port=port, ipv6=":" in host)
        for dc_id, (host, port) in addresses
    ]
    config = build(
        raw.types.Config,
        date=now,
        expires=now + _HOUR,
        test_mode=False,
        this_dc=this_dc,
        dc_options=options,
        dc_txt_domain_name="",
        chat_size_max=200,
        megagroup_size_max=200_000,
        forwarded_count_max=100,
        online_update_period_ms=210_000,
        offline_blur_timeout_ms=5_000,
        offline_idle_timeout_ms=30_000,
        online_cloud_timeout_ms=300_000,
        notify_cloud_delay_ms=30_000,
        notify_default_delay_ms=1_500,
        push_chat_period_ms=60_000,
        push_chat_limit=2,
        edit_time_limit=172_800,
        revoke_time_limit=2**31 - 1,
        revoke_pm_time_limit=2**31 - 1,
        rating_e_decay=2_419_200,
        stickers_recent_limit=200,
        channels_read_media_period=604_800,
        call_receive_timeout_ms=20_000,
        call_ring_timeout_ms=90_000,
        call_connect_timeout_ms=30_000,
        call_packet_timeout_ms=10_000,
        me_url_prefix="https://t.me/",
        caption_length_max=1024,
        message_length_max=4096,
        webfile_dc_id=this_dc,
    )
    return Written(config)


@method("help.GetNearestDc", without_account=True)
def get_nearest_dc(call: Call) -> Any:
    """This datacenter is the nearest."""
    dc_id = call.engine.settings.dc_id
    return raw.types.NearestDc(country="DE", this_dc=dc_id, nearest_dc=dc_id)


@method("bots.SetBotCommands")
def set_bot_commands(call: Call) -> Any:
    """Replace the bot's commands."""
    call.account.commands = list(call.query.commands)
    call.engine.seen.did(call.account.user_id, call.method, f"{len(call.query.commands)} commands")
    return True
