"""What people do with the findings of the audit: the page that shows them, and the corrected copy."""
