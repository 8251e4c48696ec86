"""A thought before the SID, small enough to enumerate: users of several interests, a latent policy, training, gradients."""
