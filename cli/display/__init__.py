"""What commands share of reading words and showing them: texts, tables, progress, warnings, what a terminal may see."""
