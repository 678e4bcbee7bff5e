"""The content service: quota-guarded endpoints for topics, explanations and images, on the engine."""
