"""Messages sent once more: for objects that were there before, and for messages in a dead-letter queue."""
