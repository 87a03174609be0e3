"""What people do with rule files: replay traces, review, rehearse scenarios."""
