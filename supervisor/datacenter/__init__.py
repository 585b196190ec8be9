"""A local Telegram datacenter: the server side of MTProto 2.0 over TCP, with scripted faults.

For tests, rehearsals and benchmarks. It is strict: what Telegram would refuse is refused, and a method that it doesn't
serve fails loudly and is recorded in `Datacenter.seen.unknown_methods`.

    async with Datacenter(latency=0.08) as dc:
        bot = dc.add_bot()
        dc.faults.add(Fault("rpc_error", method="messages.SendMessage", code=420, error="FLOOD_WAIT_3"))
        ...  # point a client at dc.host, dc.port and dc.public_key_pem, and sign in with bot.token
        assert dc.seen.times_delivered("hello") == 1
"""

from .box import Message
from .cluster import Cluster
from .counts import ConnectionSeen, Effect, Pushed, Seen, Sent
from .faults import Fault, FaultKind, Faults
from .forms import Form
from .rsa import RsaKey
from .server import Datacenter
from .world import Account, Channel, Chat, Person

__all__ = [
    "Account",
    "Channel",
    "Chat",
    "Cluster",
    "ConnectionSeen",
    "Datacenter",
    "Effect",
    "Fault",
    "FaultKind",
    "Faults",
    "Form",
    "Message",
    "Person",
    "Pushed",
    "RsaKey",
    "Seen",
    "Sent",
]
