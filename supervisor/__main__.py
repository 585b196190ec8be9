"""`python -m supervisor` is `tg-supervisor`."""

from supervisor.cli import main

main()
