"""The signal module inside other training frameworks. Each has a package of its own, imported by name; this one imports none."""
