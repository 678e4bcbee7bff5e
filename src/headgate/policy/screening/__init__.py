"""What can be told of a prompt before it is sent: invisible characters, and signs of an injection."""
