"""The handler without Lambda: processes in front of a queue, watched and replaced."""
