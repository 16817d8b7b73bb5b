"""Results as tables, figures and pages, beside the papers' numbers."""
