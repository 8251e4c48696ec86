"""The signal module inside other training frameworks, each in a package of its own; this one imports none of them."""
