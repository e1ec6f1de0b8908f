"""The selector: decides which engine serves and tells the gateway.

core/ is a pure function, daemon.py performs what it asks for; docs/selector.md says what else is where.
Bytes of requests never pass here: when the selector dies, inference goes on.
Imports are few, and values are NamedTuples, not dataclasses (which import `inspect`): start-up counts
where the CPU is emulated.
"""
