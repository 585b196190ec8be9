"""What the supervisor costs and what it saves, beside the bare client library, in one run on one machine.

    make bench [BENCH=--quick]              # with both client libraries, one after the other
    python -m benchmarks [--quick]          # all of it, with the library that this environment has
    python -m benchmarks.calls [--quick]    # calls: how fast, one at a time and a hundred at once
    python -m benchmarks.faults [--quick]   # what the callers notice of a reset, an outage and a silence
    python -m benchmarks.fleet [--quick] [--accounts N]    # memory, threads, tasks and starts of many accounts
    python -m benchmarks.storm [--quick] [--accounts N] [--seconds S]    # resets, an outage and broken proxies of many accounts
    python -m benchmarks.record             # the recovery log; there is no bare client to compare it with

"Bare" is the installed library's own `Client`, as its users run it: session files, its own storage, its own retries.
"Supervised" is the same library's client, driven by a `Supervisor` with default settings; only `connect_budget` and
`start_limit`, which spare Telegram, are lifted (the fleet starts 20 at once, of either kind). Both talk to a local
datacenter that is a process of its own, over 127.0.0.1 and without any other network. What counts is the ratio: the
figures beside it are this machine's, today.

The whole takes up to a quarter of an hour for each library, `--quick` three minutes. Ctrl-C or SIGTERM ends it, with the processes
that it started and no others. docs/benchmarks.md shows a run.

    calls, faults, fleet, storm    one table each, measured in fresh processes
    local                   the datacenter's process, session files, a bare client, a supervisor
    script                  arguments, signals, child processes
    table                   rows with a ratio, aligned
"""
