"""The attestor: answers a nonce with evidence of what booted, and with which key the gateway speaks.

A caller chooses the nonce and nothing else: what is signed is composed here (report_data.py). The edges are
tsm.py and tpm.py (the hardware), server.py (a unix socket, behind the gateway), daemon.py; all else is pure.
docs/attestation.md says what the evidence is worth.
"""
