"""The pure middle of the supervisor: values in, values out; no clock, no I/O, no client library."""
