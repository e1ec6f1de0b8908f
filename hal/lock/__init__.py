"""What is pinned: the lock's values (`pins`), its form and file, and how it is made anew (`resolve`)."""
