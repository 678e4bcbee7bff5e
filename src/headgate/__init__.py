"""Headgate: one engine that gets the most out of every LLM quota you own.

Import a door: `from headgate.gemini import ResilientGeminiClient`. The root exports nothing, so
that nothing inside ever has a reason to import it.
"""
