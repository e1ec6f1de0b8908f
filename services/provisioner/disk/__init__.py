"""How models lie on the disk: parts, the store, seals, markers, and the one place of its system calls."""
