"""How bytes come: places, sessions, one transfer, and what goes wrong with each."""
