"""The plumbing, written once: values, rules, trees, dtypes, errors."""
