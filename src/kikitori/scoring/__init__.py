"""What came out against what was said: error rates, reports and pages."""
