"""accounts.toml: the frozen model, the loader that reports every error with its line, and the diff of a reload."""
