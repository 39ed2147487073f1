"""Results as tables for people: sizes, accuracy, classes, times."""
