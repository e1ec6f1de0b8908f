"""Engines and models as read-only images of their own: made (`build`), referred to, exported and imported."""
