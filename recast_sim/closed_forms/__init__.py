"""Closed forms of i.i.d. groups and fits of hit counts. numpy and scipy alone."""
