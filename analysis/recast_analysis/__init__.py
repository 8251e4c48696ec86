"""analysis: reads run folders, computes statistics, prints tables and draws figures. Never trains anything."""
