"""Telling people: what the recovery log is given becomes messages to webhooks, Telegram, apprise's services, Sentry."""
