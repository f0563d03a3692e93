"""Messages sent once more: for objects that were there before, and for what lies in a dead-letter queue."""
