"""Reports for people and programs: text, JSON, pages."""
