"""A user's code, as the README shows it: type-checked, and run by test_public_api."""

from __future__ import annotations

from supervisor import (
    AccountUnavailable,
    Action,
    Kind,
    Outcome,
    OutcomeUnknown,
    RecoveryContext,
    Supervisor,
    on_recovery,
)


@on_recovery(Action.ROTATE_PROXY, kind=Kind.PROXY, account="support-*")
async def fresh_proxy(ctx: RecoveryContext) -> Outcome:
    if ctx.attempt > 2:
        return Outcome.DECLINED
    await ctx.use_proxy("socks5://user:password@198.51.100.7:1080")
    return Outcome.RECOVERED


@on_recovery(Action.FAIL)
def tell_somebody(ctx: RecoveryContext) -> Outcome:
    print(f"{ctx.account} needs you: {ctx.message}")
    return Outcome.DECLINED


async def work(path: str) -> str:
    async with Supervisor.from_config(path) as sup:
        app = await sup.client("support-bot")
        me = await app.get_me()
        try:
            await app.send_message(700_000_001, "hello")
        except OutcomeUnknown as unknown:
            print(unknown.method)
        except AccountUnavailable as unavailable:
            print(unavailable.state, unavailable.retry_at)
        try:
            raise RuntimeError("a job of mine failed")
        except RuntimeError as error:
            failure = await sup.handle_error("support-bot", error, context={"job": 7})
        kind: Kind = failure.kind
        return f"{me.first_name} {kind.value}"
