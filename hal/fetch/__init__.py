"""Bringing in what is pinned: from where (`sources`), how (`transfer`), verified and kept (`fetcher`)."""
