"""The report: one static folder, OUTPUT/report/, that a person looks at in the morning."""
