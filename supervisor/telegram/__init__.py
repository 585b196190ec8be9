"""The adapter to Telegram: the only package that imports Pyrogram, and only inside a running loop."""
