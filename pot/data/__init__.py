"""Data: containers to records, records to views, views to commitments, and questions about them."""
