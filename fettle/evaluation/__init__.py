"""Evaluation: accuracy with honest intervals, the budget, and whether a file may ship.

accuracy_statistics        accuracy, recall, calibration error, churn; Tango's paired interval
accuracy_budget            the upper bound of a paired drop, and how likely test is to pass
acceptance_criteria        never slower, never broken
passing_probability        how test will judge, forecast on validation
latency_comparison         contenders timed in the same rounds
layer_divergence, int8_diagnosis       where an int8 file diverges from the float model
cross_fitting, per_class_accuracy, goal_feasibility, batch_scoring
"""
