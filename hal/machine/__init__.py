"""Booting for a person: what is handed over (`credentials`), QEMU's command line, its process (`qemu`)."""
