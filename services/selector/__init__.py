"""The selector: decides which engine serves and tells the gateway.

core.py is a pure function; config.py, probe.py, gateway.py and status.py are its edges, daemon.py the
loop around them. Bytes of requests never pass here: when the selector dies, inference goes on.
Imports are few, and values are NamedTuples, not dataclasses (which import `inspect`): start-up counts
where the CPU is emulated.
"""
