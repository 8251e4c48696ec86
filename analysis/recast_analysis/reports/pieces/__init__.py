"""Tables and figures that several reports share."""
