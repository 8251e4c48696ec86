"""verl's entry point: importing it registers the estimators."""

from recast_train.adapters.verl.estimators import register_estimators

register_estimators()
