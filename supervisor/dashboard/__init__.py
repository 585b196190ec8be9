"""The daemon in a browser: one page, its API, `/healthz` and `/metrics`. Off unless ``[dashboard]`` says where."""
