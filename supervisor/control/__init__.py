"""The running daemon's Unix socket: `server` for the daemon, `client` for the command line."""
