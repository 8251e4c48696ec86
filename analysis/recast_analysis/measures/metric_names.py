"""Names of the simulator's metrics that rules and tables speak of."""

GREEDY, SAMPLED, RECALL = "pass_at_1_greedy", "pass_at_1_sampled", "recall_at_k"
IN_NATS = ("calibrated_log_likelihood", "log_likelihood")  # metrics whose differences, not ratios, mean something
