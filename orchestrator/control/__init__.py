"""Control: decide what is missing (pure), act on it, drive it to the end."""
