"""Rewards that read text: functions, rules, classifiers, judges."""
