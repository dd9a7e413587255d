"""Measure what scaling methods do to a language model: perplexity, LongChat-Lines and question answering."""
