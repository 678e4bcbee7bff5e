"""What the content service bears: one instance, and several behind nginx."""
