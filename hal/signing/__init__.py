"""Signing a finished build with keys that the user gives (`build`), and detached signatures."""
