"""The exact instrument: gradients, expectations and variances by enumeration."""
