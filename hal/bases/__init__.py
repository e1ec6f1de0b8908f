"""Bases: what makes the OS root tree. Each hands on the same thing, a directory that is a root tree."""
