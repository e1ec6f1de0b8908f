"""The client's side of attestation: is this appliance what its measurements say, and is this its TLS key?

A pure core: bytes and values go in, checks with words come out (`verdict.judge`). The network is in
`connection` and `session`. What cannot be verified is a failed check, never a passed one.
"""
