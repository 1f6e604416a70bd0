"""Reports: terminal, figures and the HTML page."""
