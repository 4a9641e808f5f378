"""Class words of the benchmarks, one class a line, synonyms after a semicolon."""
