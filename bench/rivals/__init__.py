"""Headgate beside other people's programs, whole against whole."""
