"""What people do with the findings of the audit: the report and the page that show them, and the corrected copy."""
