"""The user's own words in search: phrases for which a CTC head has evidence, boosted letter by letter."""
