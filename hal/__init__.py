"""hal: one YAML file in, a bootable confidential-VM appliance that serves language models out."""

__version__ = "0.1.0"
