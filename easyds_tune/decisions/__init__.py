"""Decisions of a sweep: folds over its journal, without Ray and torch."""
