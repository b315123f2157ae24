"""HTML pages and plots, and the server that shows them."""
