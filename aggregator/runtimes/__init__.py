"""The handler without Lambda: on files of one machine, or as a worker in containers."""
