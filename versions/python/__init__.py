"""Python workflows as text: what is wrong with an upload, and its graph."""
